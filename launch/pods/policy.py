"""Decides what to do next with a slice, from what gcloud shows. It runs no commands itself.

If nothing goes wrong, these are the stages:

    ABSENT -> create -> MAKING -> READY -> set up and start -> running -> finished -> delete

Once there is a verdict, such as "finished", the next steps delete the slice.
"""

import dataclasses
import enum
import math
from collections.abc import Sequence

from launch.pods.cloud import Refusal, Sight, Stage, why_refused
from launch.run_list import Run
from rethinking.rendezvous import PEER_LOST

# Seconds before the limit that are for saving the run and deleting the slice.
RESERVE = 1200.0
# With less than this left, the slice is deleted without waiting for the run to be saved.
DELETE_RESERVE = 600.0
# No slice is made for less time than this, because installing takes minutes.
USEFUL = 900.0
SAVE_SECONDS = 180.0
LOOK_EVERY = 60.0
# How long Google may take to make a slice, and how long a host may be silent.
PATIENCE = 3600.0
SILENCE = 600.0
# After this number of failures the policy gives up: of a run, of requests for a slice one after
# another, or of steps on a slice.
MOST = 3
# After this number of slices that could not be used it gives up, unless an earlier one could.
MOST_SLICES = 5


class Verdict(enum.Enum):
    """How it ends."""

    RUNNING = "the runs have been started"
    FINISHED = "all runs are finished"
    BUSY = "this slice makes other runs"
    STOPPED = "the run was stopped by --action=stop"
    LIMIT = "the limit of hours is reached"
    FAILED = "a run failed"
    UNUSABLE = "the hosts could not be used"
    REFUSED = "Google refused the request"


class Do(enum.Enum):
    """What to do next."""

    CREATE = "ask for a slice"
    SET_UP = "install and start"
    START = "start again"
    STOP = "save and stop"
    DELETE = "delete the slice"
    WAIT = "wait"
    END = "end"


@dataclasses.dataclass(frozen=True)
class Step:
    """What to do, why, and the seconds until the next look."""

    do: Do
    why: str
    delay: float = LOOK_EVERY


class Policy:
    """Remembers what went wrong so far, and decides."""

    def __init__(self, runs: Sequence[Run], only_start: bool = False):
        """With `only_start` it ends once the runs have started, and never deletes a slice."""
        self.verdict: Verdict | None = None
        self.reason = ""
        self.todo = list(runs)
        self.failures: dict[str, int] = {}  # by the folder of a run
        self._only_start = only_start
        self._refusals = self._quota_refusals = 0  # one after another
        self._request_at = -math.inf  # the earliest time for the next request
        self._bad_slices = 0
        self._tries = 0  # on this slice
        self._has_run = self._has_run_long = False
        self._has_seen = False  # whether gcloud has ever answered
        self._is_counted = False  # the failure that the hosts report
        self._since: dict[str, float] = {}  # when a state of affairs was first seen
        self._stopped_at: float | None = None

    def judge(self, verdict: Verdict, reason: str = "") -> None:
        """Sets the verdict, if there is none yet."""
        if self.verdict is None:
            self.verdict, self.reason = verdict, reason

    def finish(self, workdir: str) -> None:
        """Notes that a run has a result."""
        self.todo = [run for run in self.todo if run.workdir != workdir]
        if not self.todo:
            self.judge(Verdict.FINISHED)

    def begin(self) -> None:
        """Notes that the runs were started on all hosts."""
        self._has_run = True
        self._is_counted = False

    def refuse(self, refusal: Refusal, said: str, now: float) -> None:
        """Notes that a slice was refused at the time `now`."""
        self._refusals += 1
        self._quota_refusals = self._quota_refusals + 1 if refusal is Refusal.QUOTA else 0
        self._request_at = now + min(60.0 * 2 ** (self._refusals - 1), 600.0)
        self.reason = f"{refusal.value}: {said}"
        if refusal is Refusal.FINAL or self._quota_refusals >= MOST:
            self.judge(Verdict.REFUSED, self.reason)

    def decide(self, sight: Sight, now: float, left: float) -> Step:
        """The next step, at the time `now`, with `left` seconds of the limit left."""
        if sight.is_final and not self._has_seen:
            self.judge(Verdict.REFUSED, sight.said)
            return Step(Do.END, Verdict.REFUSED.value)
        self._has_seen = self._has_seen or sight.stage is not Stage.UNKNOWN
        is_there = sight.stage in (Stage.MAKING, Stage.READY, Stage.UNKNOWN, Stage.GOING)
        if left <= (RESERVE if is_there else RESERVE + USEFUL):
            self.judge(Verdict.LIMIT)
        if sight.stage is Stage.READY and self.verdict is None:
            self._judge_hosts(sight)
        if self.verdict and (self._only_start or self.verdict is Verdict.BUSY):
            return Step(Do.END, self.verdict.value)
        if self.verdict is not None:
            return self._wind_down(sight, now, left)
        return self._go_on(sight, now)

    def _judge_hosts(self, sight: Sight) -> None:
        states = {host.state for host in sight.hosts}
        if "busy" in states:
            self.judge(Verdict.BUSY)
        elif "finished" in states:
            # Failed runs were given up so that the others could be made.
            given_up = [run for run, count in self.failures.items() if count >= MOST]
            self.judge(Verdict.FAILED if given_up else Verdict.FINISHED, self.reason)
        elif "stopped" in states and self._has_run:  # else the stop was earlier, and it goes on now
            self.judge(Verdict.STOPPED)
        elif self._only_start and states == {"running"} and len(sight.hosts) == sight.num_hosts:
            self.judge(Verdict.RUNNING)
        self._has_run = self._has_run or "running" in states

    def _wind_down(self, sight: Sight, now: float, left: float) -> Step:
        """The next step once there is a verdict: save the run, then delete the slice."""
        assert self.verdict is not None
        why = self.verdict.value
        if sight.stage is Stage.ABSENT:
            return Step(Do.END, why)
        if sight.stage is Stage.GOING:
            return Step(Do.WAIT, why, 20.0)
        runs = any(host.state == "running" for host in sight.hosts)
        if runs and left > DELETE_RESERVE:
            if self._stopped_at is None:
                self._stopped_at = now
                return Step(Do.STOP, why, 10.0)
            if now < self._stopped_at + SAVE_SECONDS:
                return Step(Do.WAIT, "the run is being saved", 10.0)
        return Step(Do.DELETE, why, 10.0)

    def _go_on(self, sight: Sight, now: float) -> Step:
        why = sight.said or sight.stage.value
        if sight.stage is not Stage.MAKING:
            self._since.pop("making", None)
        if sight.stage is Stage.ABSENT:
            self._since.clear()
            self._tries = 0
            if now < self._request_at:
                return Step(Do.WAIT, self.reason, min(self._request_at - now, LOOK_EVERY))
            return Step(Do.CREATE, "", 20.0)
        if sight.stage is Stage.LOST:
            if sight.said and not self._lasts("refused", now):  # a request that failed
                self.refuse(why_refused(sight.said), sight.said, now)
            return Step(Do.DELETE, why, 10.0)
        if sight.stage is Stage.MAKING and self._lasts("making", now) > PATIENCE:
            return self._drop_slice("it did not become ready within an hour")
        if sight.stage is not Stage.READY:
            return Step(Do.WAIT, why, 20.0 if sight.stage is Stage.MAKING else LOOK_EVERY)
        self._refusals = self._quota_refusals = 0
        return self._use(sight, now)

    def _use(self, sight: Sight, now: float) -> Step:
        """The slice is ready."""
        states = {host.state for host in sight.hosts}
        silent = sight.num_hosts - len(sight.hosts)
        if silent or not sight.hosts:
            return self._without_some(states, silent, sight, now)
        self._since.pop("silence", None)
        if states == {"running"}:
            if self._lasts("running", now) > SILENCE:
                self._has_run_long = True
                self._tries = 0
            return Step(Do.WAIT, "running")
        self._since.pop("running", None)
        if "new" in states:
            return self._try(Do.SET_UP, "some hosts have nothing installed")
        failed = [host for host in sight.hosts if host.state == "failed"]
        causes = [host for host in failed if host.code != PEER_LOST]
        if causes:
            return self._after_failure(causes[0].workdir, causes[0].code)
        if "running" in states and self._lasts("ending", now) < SILENCE:
            return Step(Do.WAIT, "some processes have ended", 20.0)  # the others soon will
        self._since.pop("ending", None)
        return self._try(Do.START, "the processes ended before the run was finished")

    def _without_some(self, states: set[str], silent: int, sight: Sight, now: float) -> Step:
        """Some hosts do not answer."""
        why = f"{silent} of {sight.num_hosts} hosts do not answer: {sight.said}"
        if "SSH agent" in sight.said:  # gcloud says what to do
            self.judge(Verdict.UNUSABLE, sight.said)
            return Step(Do.DELETE, why, 10.0)
        # If the other hosts run, the process of this one does, too. Else they would have ended.
        patience = math.inf if states == {"running"} else SILENCE
        if not states and self._has_run:
            patience = PATIENCE  # the cause may be the network here
        if self._lasts("silence", now) > patience:
            return self._drop_slice(why)
        return Step(Do.WAIT, why, 30.0)

    def _after_failure(self, workdir: str, code: int) -> Step:
        if not self._is_counted:
            self._is_counted = True
            # Exit code 2 is an error in the user's input, which happens again.
            self.failures[workdir] = MOST if code == 2 else self.failures.get(workdir, 0) + 1
        why = f"{workdir} failed with exit code {code}"
        if self.failures.get(workdir, 0) < MOST:
            return Step(Do.START, why, 30.0)
        self.reason = why
        self.todo = [run for run in self.todo if run.workdir != workdir]
        if self.todo:
            return Step(Do.START, f"{why}, and is given up", 30.0)
        self.judge(Verdict.FAILED, why)
        return Step(Do.DELETE, why, 10.0)

    def _try(self, do: Do, why: str) -> Step:
        """Tries a step on this slice again, at most MOST times. Then it gives the slice up."""
        self._tries += 1
        return Step(do, why, 30.0) if self._tries <= MOST else self._drop_slice(why)

    def _drop_slice(self, why: str) -> Step:
        self._bad_slices += 1
        if self._bad_slices >= MOST_SLICES and not self._has_run_long:
            self.judge(Verdict.UNUSABLE, why)
        return Step(Do.DELETE, why, 10.0)

    def _lasts(self, what: str, now: float) -> float:
        """Seconds for which each look has shown `what`. Call it at each such look."""
        return now - self._since.setdefault(what, now)
