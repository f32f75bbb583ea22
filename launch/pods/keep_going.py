"""`up` and `watch` of launch.tpu_pod: their limit, their loop, and what they say at the end."""

import functools
import math
import subprocess
import sys
from collections.abc import Sequence

from launch.pods import cloud, policy
from launch.pods.commands import Slice
from launch.pods.meter import Meter, default_file
from launch.pods.policy import Policy, Verdict
from launch.pods.watch import Surroundings, Watch
from launch.run_list import Run
from rethinking import cli
from rethinking.cli import output
from rethinking.errors import InputError, require

_INTERRUPTED = """
This program has ended, but a slice that exists goes on and costs money. A request stays in the
queue. The same command watches them again. --action=delete ends them."""
_SUCCESS = (Verdict.RUNNING, Verdict.FINISHED, Verdict.STOPPED)


def check_hours(hours: float) -> None:
    """Raises InputError for a limit that is too low to make a slice."""
    least = (policy.RESERVE + policy.USEFUL) / 3600
    require(
        hours > least and math.isfinite(hours),
        f"--max_hours={hours:g}: must be more than {least:.2f}. Installing takes minutes, and the "
        f"last {policy.RESERVE / 60:.0f} minutes are for saving the run and deleting the slice.",
    )


def bundle(file: str) -> list[str]:
    """The command that writes a file with the commits that the hosts install."""
    return ["git", "bundle", "create", file, "HEAD"]


def until_done(
    pod: Slice,
    create: list[str],
    runs: Sequence[Run],
    commits: str,
    before: Sequence[str],
    max_hours: float | None,
    identity: Sequence[str],
    world: Surroundings | None = None,
    call: cloud.Call = cloud.call,
) -> int:
    """Makes the runs on a slice until they are finished or, without `max_hours`, until they run.

    `create` asks for the slice, `commits` is the file for `bundle`, and `identity` names the slice.
    Returns the exit code.
    """
    output.outlive_terminal()
    if world is None:
        world = Surroundings(say=functools.partial(print, flush=True))
    made = subprocess.run(bundle(commits)).returncode
    if made:
        return made
    meter = None
    if max_hours is not None:
        workdirs = [run.workdir for run in runs]
        try:
            meter = Meter(default_file(*identity, *workdirs), max_hours * 3600)
        except InputError as error:
            cli.fail(error)
    plan = Policy(runs, only_start=meter is None)
    watch = Watch(cloud.Cloud(pod, create, runs, call), plan, meter, commits, before, world)
    try:
        verdict = watch.run()
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130
    if meter and verdict is Verdict.FINISHED:
        meter.forget()
    for line in _last_words(verdict, plan.reason, meter):
        world.say(line)
    return 0 if verdict in _SUCCESS else 1


def _last_words(verdict: Verdict, reason: str, meter: Meter | None) -> list[str]:
    lines = []
    if reason and verdict not in _SUCCESS:
        lines.append(f"Cause: {reason}")
    if verdict is Verdict.RUNNING:
        lines.append("The run goes on without this program. --action=logs shows what it prints.")
    if verdict is Verdict.BUSY:
        lines.append("Choose another --name, or end the other runs with --action=stop.")
    elif meter is None and verdict is not Verdict.REFUSED:
        lines.append("The slice costs money until you delete it with --action=delete.")
    elif meter is not None and verdict is not Verdict.REFUSED:
        lines.append(f"The slice is deleted. Slices existed for {meter.used / 3600:.2f} hours.")
    if verdict is Verdict.LIMIT:
        lines.append("The same command with a larger --max_hours continues.")
    return lines
