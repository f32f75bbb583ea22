"""Makes runs on a TPU slice of Google Cloud, with one process on each of its hosts.

    where="--name=NAME --zone=ZONE"
    python -m launch.tpu_pod --action=watch $where --accelerator_type=v5litepod-16 --spot \\
        --max_hours=20 -- ARGUMENTS OF rethinking.main

A slice is a group of TPU chips on several machines (hosts). `watch` makes the slice, or waits until
Google has one. It installs the checked-out commit and starts the run. If Google takes the slice
away, it makes a new one. When the run is finished, or after --max_hours, it deletes the slice.

`up` does the same, but ends when the run has begun. With --sweep, the arguments are those of
launch.sweep, and the slice makes one run after another.

The same step by step:

    python -m launch.tpu_pod --action=create $where --accelerator_type=v5litepod-16 [--spot]
    python -m launch.tpu_pod --action=setup $where
    python -m launch.tpu_pod --action=run $where -- ARGUMENTS OF rethinking.main
    python -m launch.tpu_pod --action=stop $where [--force]
    python -m launch.tpu_pod --action=logs $where
    python -m launch.tpu_pod --action=status $where
    python -m launch.tpu_pod --action=delete $where

With --dry_run it only prints the commands, which you can paste into a shell.

The commands need the Google Cloud CLI. Choose a project with `gcloud init` or with --project.
A slice costs money from its creation until it is deleted. See docs/tpu_pod.md.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

from launch import run_list
from launch.pods import commands, hosts, keep_going
from launch.pods.commands import Slice
from launch.run_list import Run
from rethinking import cli
from rethinking.errors import InputError, require

_ACTION = flags.DEFINE_enum(
    "action",
    None,
    ["up", "watch", "create", "setup", "run", "stop", "logs", "status", "delete"],
    "What to do.",
)
_NAME = flags.DEFINE_string("name", None, "Name of the slice.")
_ZONE = flags.DEFINE_string("zone", None, "Zone of the slice, such as us-west4-a.")
_PROJECT = flags.DEFINE_string(
    "project", None, "Google Cloud project. Default: the project that gcloud has chosen."
)
_TYPE = flags.DEFINE_string(
    "accelerator_type", "v5litepod-16", "create, up, watch: kind of chip and number of chips."
)
_RUNTIME = flags.DEFINE_string(
    "runtime_version",
    None,
    "create, up, watch: system of the hosts. Default: depends on the kind of chip.",
)
_SPOT = flags.DEFINE_boolean(
    "spot",
    False,
    "create, up, watch: a cheaper slice, which Google may take away at any moment.",
)
_QUEUED = flags.DEFINE_boolean(
    "queued",
    False,
    "create, up, watch, status, delete: the request for the slice waits in Google's queue (as a "
    "queued resource) until there is capacity.",
)
_GCLOUD = flags.DEFINE_multi_string(
    "gcloud",
    [],
    "create, up, watch: an option for the gcloud command that makes the slice, such as "
    "--gcloud=network=NAME or --gcloud=reserved.",
)
_SSH = flags.DEFINE_multi_string(
    "ssh", [], "An option for gcloud's connections to the hosts, such as --ssh=internal-ip."
)
_SWEEP = flags.DEFINE_boolean("sweep", False, "up, watch: The arguments are those of launch.sweep.")
_BEFORE = flags.DEFINE_multi_string(
    "before", [], "up, watch: A shell command for each host before the run: to mount a disk."
)
_MAX_HOURS = flags.DEFINE_float(
    "max_hours", None, "watch: The most hours for which slices may exist.", lower_bound=0.0
)
_FORCE = flags.DEFINE_boolean(
    "force", False, "stop: Kill all processes that use the chips, without saving the run."
)
_WORKER = flags.DEFINE_string("worker", "0", "logs: Number of the host, or all.")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the commands and run none.")


def check_workdir(arguments: list[str], workdir: str) -> None:
    """Raises InputError for a run directory that would be a different one on each host."""
    # Each host has a home folder of its own.
    in_home = any(argument.startswith("--workdir=~") for argument in arguments)
    if in_home or not workdir.startswith(("gs://", "/")):
        raise InputError(
            f"--workdir={workdir} would be a different folder on each host. Choose a folder in a "
            "bucket, gs://BUCKET/FOLDER, or an absolute path that all hosts see."
        )


def run_command(arguments: list[str]) -> str:
    """Returns the shell command that each host runs.

    Raises InputError for arguments that rethinking.main would refuse.
    """
    _, workdir = cli.check_forwarded(arguments)
    check_workdir(arguments, workdir)
    python = ".venv/bin/python -u -m rethinking.main --distributed"
    return f"cd rethinking && exec {python} {shlex.join(arguments)}"


def _create(pod: Slice) -> list[str]:
    return pod.create(_TYPE.value, _RUNTIME.value, _SPOT.value, _GCLOUD.value)


def _runs(arguments: list[str]) -> list[Run]:
    """The runs of `up` and `watch`. Raises InputError for what rethinking.main would refuse."""
    runs = run_list.sweep(arguments) if _SWEEP.value else run_list.single(arguments)
    devices = commands.count_devices(_TYPE.value)
    for run in runs:
        check_workdir(arguments, run.workdir)
        if devices:
            run_list.check_devices(run, *devices)
    return runs


def planned(pod: Slice, action: str, arguments: list[str], bundle: str) -> list[list[str]]:
    """Returns the commands of an action. Those of `setup` make and copy the file `bundle`.

    Of `up` and `watch` these are the commands if nothing goes wrong.
    """
    # A bundle has the commits, so results can name the commit that made them.
    setup = [keep_going.bundle(bundle), pod.copy(bundle), pod.ssh(hosts.INSTALL)]
    if action in ("up", "watch"):
        runs = _runs(arguments)
        start = pod.ssh(hosts.start(hosts.name_job(runs), runs, _BEFORE.value))
        delete = [pod.delete()] if action == "watch" else []
        return [_create(pod), *setup, start, *delete]
    if action == "setup":
        return setup
    if action == "run":
        return [pod.ssh(run_command(arguments))]
    if action == "stop":
        return [pod.ssh(hosts.FORCE_STOP if _FORCE.value else hosts.STOP)]
    one = {
        "create": lambda: _create(pod),
        "logs": lambda: pod.ssh(hosts.FOLLOW, worker=_WORKER.value),
        "status": pod.describe,
        "delete": pod.delete,
    }
    return [one[action]()]


def _check_flags(action: str, arguments: list[str]) -> None:
    """Raises InputError for flags and arguments that have no effect on the action."""
    require(
        not arguments or action in ("run", "up", "watch"),
        f"--action={action} takes no arguments of rethinking.main: {shlex.join(arguments)}",
    )
    require(not _FORCE.value or action == "stop", "--force is for --action=stop.")
    starts = action in ("up", "watch")
    require(not _SWEEP.value or starts, "--sweep is for --action=up and --action=watch.")
    require(
        not _BEFORE.value or starts,
        "--before is for --action=up and --action=watch. For another action, run the line on the "
        "hosts yourself: gcloud compute tpus tpu-vm ssh NAME --worker=all --command='...'",
    )
    require(
        _MAX_HOURS.value is None or action == "watch",
        "--max_hours is for --action=watch, which deletes the slice in time.",
    )
    if action == "watch":
        require(
            _MAX_HOURS.value is not None,
            "needed: --max_hours=HOURS. The slice is deleted before they are over.",
        )
        keep_going.check_hours(_MAX_HOURS.value)


def main(arguments: list[str]) -> None:
    """Does what --action says."""
    action = _ACTION.value
    pod = Slice(_NAME.value, _ZONE.value, _PROJECT.value, _QUEUED.value, _SSH.value)
    with tempfile.TemporaryDirectory() as folder:
        bundle = hosts.BUNDLE if _DRY_RUN.value else os.path.join(folder, hosts.BUNDLE)
        try:
            _check_flags(action, arguments)
            todo = planned(pod, action, arguments, bundle)
        except InputError as error:
            cli.fail(error)
        if _DRY_RUN.value:
            for command in todo:
                print(shlex.join(command))
            return
        _require_tools(todo)
        if action in ("setup", "up", "watch"):
            _warn_of_changes()
        if action in ("up", "watch"):
            identity = (_NAME.value, _ZONE.value, _PROJECT.value or "")
            sys.exit(
                keep_going.until_done(
                    pod,
                    _create(pod),
                    _runs(arguments),
                    bundle,
                    _BEFORE.value,
                    _MAX_HOURS.value,
                    identity,
                )
            )
        for command in todo:
            code = subprocess.run(command).returncode
            if code:
                sys.exit(code)


def _require_tools(todo: list[list[str]]) -> None:
    """Ends the program if a command is not installed."""
    for command in todo:
        if not shutil.which(command[0]):
            cli.fail(
                f"{command[0]} is not installed here. For gcloud, see "
                "https://cloud.google.com/sdk/docs/install. --dry_run shows the commands without "
                "running them."
            )


def _warn_of_changes() -> None:
    if subprocess.run(["git", "diff", "--quiet", "HEAD"]).returncode:
        print("warning: uncommitted changes are not copied to the hosts", file=sys.stderr)


if __name__ == "__main__":
    app.run(
        main,
        flags_parser=lambda argv: cli.parse_launcher_flags(
            argv, required=("action", "name", "zone")
        ),
    )
