"""Calls gcloud, and reports the state of the slice and its hosts, and why Google refused one."""

import contextlib
import enum
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from launch.pods import commands, hosts
from launch.pods.hosts import Host
from launch.run_list import Run
from rethinking import experiments


class Answer(NamedTuple):
    """How a command ended. Exit code 124: it took too long and was ended."""

    code: int
    out: str
    err: str


TOO_LONG = 124
Call = Callable[[Sequence[str], float], Answer]


class Stage(enum.Enum):
    """The state of a slice. `_STAGES` and `_QUEUED` have Google's names of the states."""

    ABSENT = "there is no slice"
    WAITING = "waiting for capacity"  # costs nothing
    MAKING = "being made"
    READY = "ready"
    LOST = "taken away"  # costs nothing, but must be deleted
    GOING = "being deleted"
    UNKNOWN = "gcloud does not answer"


class Sight(NamedTuple):
    """What gcloud shows: the slice, the hosts that answer, and how many there should be."""

    stage: Stage
    hosts: tuple[Host, ...] = ()
    num_hosts: int = 0
    said: str = ""  # gcloud's message
    is_final: bool = False  # gcloud is not allowed to look, or not set up


class Refusal(enum.Enum):
    """Why a slice was not made."""

    CAPACITY = "no capacity"
    QUOTA = "the quota is used up"
    FINAL = "the request is wrong or not allowed"
    OTHER = "gcloud failed"


# States of a node and of a queued resource. A node that is stopped is not billed.
_STAGES = {
    "READY": Stage.READY,
    "DELETING": Stage.GOING,
    "PREEMPTED": Stage.LOST,
    "TERMINATED": Stage.LOST,
    "STOPPED": Stage.LOST,
    "HIDDEN": Stage.LOST,
}
_QUEUED = {
    "ACCEPTED": Stage.WAITING,
    "CREATING": Stage.WAITING,
    "WAITING_FOR_RESOURCES": Stage.WAITING,
    "PROVISIONING": Stage.MAKING,
    "ACTIVE": Stage.MAKING,  # its node decides, once it is listed
    "DELETING": Stage.GOING,
    "SUSPENDING": Stage.GOING,
    "SUSPENDED": Stage.LOST,
    "FAILED": Stage.LOST,
}
# A host that does not answer must not hold up the others for long. gcloud itself tries ten times.
_FAST = ("--ssh-flag=-oConnectTimeout=10", "--ssh-flag=-oBatchMode=yes", "--quiet")
_FAST_COPY = ("--scp-flag=-oConnectTimeout=10", "--scp-flag=-oBatchMode=yes", "--quiet")
_LOOK_SECONDS, _ASK_SECONDS, _STOP_SECONDS, _START_SECONDS = 60.0, 120.0, 60.0, 180.0
_MAKE_SECONDS, _INSTALL_SECONDS, _DELETE_SECONDS = 1800.0, 1200.0, 300.0


def call(command: Sequence[str], seconds: float) -> Answer:
    """Runs a command, and ends it with all its children after some seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, because a child that lives on would keep a pipe open.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0
        )
        try:
            code = process.wait(max(seconds, 1.0))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = TOO_LONG
        out.seek(0)
        err.seek(0)
        return Answer(code, out.read(), err.read())


class Cloud:
    """One slice, as gcloud shows it. `seconds_left` limits how long a command may take."""

    def __init__(
        self, pod: commands.Slice, create: Sequence[str], runs: Sequence[Run], call: Call = call
    ):
        """`create` is the command that asks for the slice, and `runs` are made on it."""
        self.pod, self._create, self._call = pod, create, call
        self._job = hosts.name_job(runs)
        self.seconds_left = float("inf")

    def look(self) -> Sight:
        """The state of the slice and, if it is ready, the answers of its hosts."""
        stage, node, said = Stage.ABSENT, None, ""
        if self.pod.is_queued:
            request, failed = self._find(self.pod.list_requests())
            if failed:
                return failed
            if request:
                stage = _QUEUED.get(request["state"]["state"], Stage.MAKING)
                said = request["state"].get("failedData", {}).get("error", {}).get("message", "")
        if stage in (Stage.ABSENT, Stage.MAKING, Stage.GOING, Stage.LOST):
            node, failed = self._find(self.pod.list_slices())
            if failed:
                return failed
        if node and stage in (Stage.ABSENT, Stage.MAKING):
            stage = _STAGES.get(node["state"], Stage.MAKING)
        if stage is not Stage.READY:
            return Sight(stage, said=said)
        answer = self._ask(self.pod.ssh(hosts.ASK, *_FAST), _ASK_SECONDS)
        found = tuple(hosts.read(answer.out, self._job))
        return Sight(stage, found, len(node.get("networkEndpoints", ())), last_line(answer.err))

    def _find(self, command: Sequence[str]) -> tuple[dict | None, Sight | None]:
        """The slice in a list, or None; and what to report if gcloud failed, or None."""
        answer = self._ask(command, _LOOK_SECONDS)
        try:
            listed = json.loads(answer.out) if answer.code == 0 else None
        except ValueError:
            listed = None
        if listed is None:
            if why_refused(answer.err) is Refusal.FINAL:
                said = " ".join(answer.err.split())[:400]  # several lines: some say what to do
                return None, Sight(Stage.UNKNOWN, said=said, is_final=True)
            return None, Sight(Stage.UNKNOWN, said=last_line(answer.err))
        names = {each["name"].rpartition("/")[2]: each for each in listed}
        return names.get(self.pod.name), None

    def create(self) -> tuple[Refusal, str] | None:
        """Makes the slice, or asks for it. If refused, returns the kind and gcloud's message."""
        answer = self._ask(self._create, _MAKE_SECONDS)
        if answer.code in (0, TOO_LONG):
            return None
        # Exit code 2: gcloud does not understand its arguments.
        kind = Refusal.FINAL if answer.code == 2 else why_refused(answer.err)
        return kind, last_line(answer.err)

    def delete(self) -> Answer:
        """Deletes the slice, or the request for it."""
        return self._call(self.pod.delete(), _DELETE_SECONDS)

    def set_up(self, bundle: str) -> Answer:
        """Installs the bundle of commits on all hosts."""
        copied = self._ask(self.pod.copy(bundle, *_FAST_COPY), _START_SECONDS)
        if copied.code:
            return copied
        return self._ask(self.pod.ssh(hosts.INSTALL, *_FAST), _INSTALL_SECONDS)

    def start(self, runs: Sequence[Run], before: Sequence[str], delete_after: float) -> Answer:
        """Starts runs on all hosts. The hosts delete the slice after `delete_after` seconds."""
        deadline = ""
        if delete_after < float("inf"):
            deadline = hosts.delete_after(delete_after, self.pod.delete())
        command = hosts.start(self._job, runs, before, deadline)
        return self._ask(self.pod.ssh(command, *_FAST), _START_SECONDS)

    def stop(self) -> Answer:
        """Makes the hosts save their run and end it."""
        return self._call(self.pod.ssh(hosts.STOP, *_FAST), _STOP_SECONDS)

    def last_lines(self) -> str:
        """The last lines that each host has logged."""
        return self._ask(self.pod.ssh(hosts.LAST_LINES, *_FAST), _ASK_SECONDS).out

    def is_finished(self, run: Run) -> bool:
        """Whether a run in a bucket has a result. False for other folders: only hosts see them.

        A run is not finished if the folder has a shorter one, which it will lengthen.
        """
        if not run.workdir.startswith("gs://"):
            return False
        if self._ask(commands.list_file(run.workdir, "result.json"), _LOOK_SECONDS).code:
            return False
        shown = self._ask(commands.print_file(run.workdir, "config.json"), _LOOK_SECONDS)
        with contextlib.suppress(ValueError):
            return not experiments.lengthens(json.loads(shown.out), run.config)
        return False

    def _ask(self, command: Sequence[str], seconds: float) -> Answer:
        return self._call(command, min(seconds, self.seconds_left))


def why_refused(said: str) -> Refusal:
    """The kind of a refusal, from gcloud's messages."""
    if re.search(r"[Qq]uota", said):
        return Refusal.QUOTA
    if re.search("capacity|RESOURCE_POOL_EXHAUSTED|enough resources|RESOURCE_EXHAUSTED", said):
        return Refusal.CAPACITY
    final = "PERMISSION_DENIED|INVALID_ARGUMENT|unrecognized arguments|active account|properly spec"
    return Refusal.FINAL if re.search(final, said) else Refusal.OTHER


def last_line(text: str) -> str:
    """The most useful line of gcloud's messages: the last error, or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or '"message"' in line]
    return (errors or lines or [""])[-1]
