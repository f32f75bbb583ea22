"""Keeps runs going on a slice: looks, decides, acts, and waits, until there is a verdict."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from launch.pods import policy
from launch.pods.cloud import Answer, Cloud, Sight, Stage, last_line
from launch.pods.meter import Meter
from launch.pods.policy import Do, Policy, Step, Verdict

# Seconds before the limit at which the hosts delete the slice, if the watch has not done it.
_OWN_RESERVE = 300.0
_COSTS = (Stage.MAKING, Stage.READY, Stage.GOING, Stage.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The functions that tests replace: the time, a pause, and the output of messages."""

    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = print


class Watch:
    """Watches one slice. `run` returns the verdict."""

    def __init__(
        self,
        cloud: Cloud,
        plan: Policy,
        meter: Meter | None,
        bundle: str,
        before: Sequence[str] = (),
        world: Surroundings = Surroundings(),
    ):
        """Without a `meter` there is no limit. `bundle` has the commits that hosts install."""
        self._cloud, self._plan, self._meter, self._world = cloud, plan, meter, world
        self._bundle, self._before = bundle, before
        self._said = ""
        self._stage = Stage.ABSENT  # at the last look

    def run(self) -> Verdict:
        """Acts until there is nothing left to do."""
        while True:
            sight = self._look()
            step = self._plan.decide(sight, self._world.clock(), self._left())
            if step.do is Do.CREATE:
                self._look_for_results()
                step = self._plan.decide(sight, self._world.clock(), self._left())
            self._tell(step, sight)
            if step.do is Do.END:
                assert self._plan.verdict is not None
                return self._plan.verdict
            self._do(step, sight)
            self._world.sleep(step.delay)

    def _left(self) -> float:
        return self._meter.left if self._meter else math.inf

    def _look(self) -> Sight:
        self._limit_calls()
        sight = self._cloud.look()
        # It may have been made and taken away since the last look.
        was_missed = sight.stage is Stage.LOST and self._stage in (Stage.ABSENT, Stage.WAITING)
        self._note(sight.stage in _COSTS or was_missed)
        self._stage = sight.stage
        self._limit_calls()
        return sight

    def _note(self, costs: bool) -> None:
        if self._meter:
            self._meter.note(self._world.clock(), costs)

    def _limit_calls(self) -> None:
        """Limits the time of commands, so that enough time is left to delete the slice."""
        self._cloud.seconds_left = max(self._left() - policy.DELETE_RESERVE, 30.0)

    def _look_for_results(self) -> None:
        for run in list(self._plan.todo):
            if self._cloud.is_finished(run):
                self._plan.finish(run.workdir)

    def _do(self, step: Step, sight: Sight) -> None:
        if step.do is Do.CREATE:
            self._create()
        elif step.do is Do.SET_UP:
            self._set_up()
        elif step.do is Do.START:
            self._show_logs(sight)
            self._start()
        elif step.do is Do.STOP:
            self._cloud.stop()
        elif step.do is Do.DELETE:
            if self._plan.verdict in (Verdict.FAILED, Verdict.UNUSABLE):
                self._show_logs(sight)
            answer = self._cloud.delete()
            if answer.code:
                self._say(f"delete: {last_line(answer.err)}")

    def _create(self) -> None:
        refused = self._cloud.create()
        if refused:
            self._plan.refuse(*refused, self._world.clock())
            self._say(f"{refused[0].value}: {refused[1]}")
        elif not self._cloud.pod.is_queued:
            self._note(True)

    def _set_up(self) -> None:
        answer = self._cloud.set_up(self._bundle)
        if answer.code == 0:
            self._start()
        else:
            self._say_failed("installing", answer)

    def _start(self) -> None:
        left = self._left() - _OWN_RESERVE
        answer = self._cloud.start(self._plan.todo, self._before, left)
        if answer.code == 0:
            self._plan.begin()
        else:
            self._say_failed("starting", answer)

    def _say_failed(self, what: str, answer: Answer) -> None:
        self._say(f"{what} failed with exit code {answer.code}: {last_line(answer.err)}")

    def _show_logs(self, sight: Sight) -> None:
        """Shows the logs of the hosts, because they are lost with the slice."""
        if any(host.state in ("failed", "died") for host in sight.hosts):
            self._say(f"The last lines of the hosts:\n{self._cloud.last_lines()}")

    def _tell(self, step: Step, sight: Sight) -> None:
        """Prints the step and its reason, unless they are the same as last time."""
        text = step.do.value if step.do is not Do.WAIT else sight.stage.value
        if step.why and step.why != text:
            text = f"{text}: {step.why}"
        if text != self._said:
            self._said = text
            self._say(text)

    def _say(self, text: str) -> None:
        used = f", {self._meter.used / 3600:.2f} h used" if self._meter else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._world.clock()))
        self._world.say(f"{when}{used}: {text}")
