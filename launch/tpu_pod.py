"""Makes one run on a TPU pod slice of Google Cloud, with one process on each of its hosts.

    where="--name=NAME --zone=ZONE"
    python -m launch.tpu_pod --action=create $where --accelerator_type=v5litepod-16 [--spot]
    python -m launch.tpu_pod --action=setup $where
    python -m launch.tpu_pod --action=run $where -- ARGUMENTS OF rethinking.main
    python -m launch.tpu_pod --action=stop $where
    python -m launch.tpu_pod --action=status $where
    python -m launch.tpu_pod --action=delete $where

`setup` installs the checked-out commit of this repository on all hosts. `stop` saves the run and
ends it. With --dry_run the commands are only printed, ready to be pasted into a shell.

The commands need the Google Cloud CLI. Choose a project with `gcloud init` or with --project.
A slice costs money from create to delete. See docs/tpu_pod.md.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

from rethinking import cli
from rethinking.errors import InputError, require_known

_ACTION = flags.DEFINE_enum(
    "action", None, ["create", "setup", "run", "stop", "status", "delete"], "What to do."
)
_NAME = flags.DEFINE_string("name", None, "Name of the slice.")
_ZONE = flags.DEFINE_string("zone", None, "Zone of the slice, such as us-west4-a.")
_PROJECT = flags.DEFINE_string(
    "project", None, "Google Cloud project. Default: the project that gcloud has chosen."
)
_TYPE = flags.DEFINE_string(
    "accelerator_type", "v5litepod-16", "create: kind of chip and number of chips."
)
_RUNTIME = flags.DEFINE_string(
    "runtime_version", None, "create: system of the hosts. Default: depends on the kind of chip."
)
_SPOT = flags.DEFINE_boolean(
    "spot", False, "create: a cheaper slice, which Google may take away at any moment."
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the commands and run none.")

# https://cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
    "v6e": "v2-alpha-tpuv6e",
    "v5p": "v2-alpha-tpuv5",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v4": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v2": "tpu-ubuntu2204-base",
}
_BUNDLE = "rethinking.bundle"
# The Python of the hosts may be older than 3.11. uv installs a newer one.
_INSTALL = f"""\
set -e
git init --quiet rethinking && cd rethinking
git fetch --quiet ../{_BUNDLE} HEAD && git checkout --quiet --force FETCH_HEAD
[ -x ~/.local/bin/uv ] || \
  curl --fail --silent --show-error --location https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable '.[tpu,gcs,imagenet]'"""
# With the brackets, the pattern does not match the command line of pkill itself.
_STOP = "pkill --full '[r]ethinking.main' || echo nothing is running"


class Slice:
    """The gcloud commands for one TPU slice. Each method returns a command and runs nothing."""

    def __init__(self, name: str, zone: str, project: str | None = None):
        self._name = name
        self._where = [f"--zone={zone}"]
        if project:
            self._where.append(f"--project={project}")

    def create(
        self, accelerator_type: str, runtime_version: str | None = None, spot: bool = False
    ) -> list[str]:
        """Creates the slice. Raises InputError if it takes a --runtime_version that is missing."""
        if not runtime_version:
            kind = accelerator_type.partition("-")[0]
            require_known(
                kind,
                RUNTIMES,
                f"--accelerator_type={accelerator_type}: give its --runtime_version. Unknown kind",
            )
            runtime_version = RUNTIMES[kind]
        arguments = [
            self._name,
            f"--accelerator-type={accelerator_type}",
            f"--version={runtime_version}",
        ]
        if spot:
            arguments.append("--spot")
        return self._command("create", *arguments)

    def copy(self, file: str) -> list[str]:
        """Copies a file to the home folder on every host."""
        return self._command("scp", file, f"{self._name}:", "--worker=all")

    def ssh(self, command: str) -> list[str]:
        """Runs a shell command on all hosts at once."""
        return self._command("ssh", self._name, "--worker=all", f"--command={command}")

    def describe(self) -> list[str]:
        """Prints the state of the slice: CREATING, READY, PREEMPTED, ..."""
        return self._command("describe", self._name, "--format=value(state)")

    def delete(self) -> list[str]:
        """Deletes the slice and all files on its hosts, without asking."""
        return self._command("delete", self._name, "--quiet")

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, *self._where]


def run_command(arguments: list[str]) -> str:
    """Returns the shell command that each host runs.

    Raises InputError for arguments that rethinking.main would refuse.
    """
    _, workdir = cli.check_forwarded(arguments)
    # Each host has a home folder of its own.
    in_home = any(argument.startswith("--workdir=~") for argument in arguments)
    if in_home or not workdir.startswith(("gs://", "/")):
        raise InputError(
            f"--workdir={workdir} would be another folder on every host. Choose a folder in a "
            "bucket, gs://BUCKET/FOLDER, or an absolute path that all hosts see."
        )
    python = ".venv/bin/python -u -m rethinking.main --distributed"
    return f"cd rethinking && exec {python} {shlex.join(arguments)}"


def commands(pod: Slice, action: str, arguments: list[str], bundle: str) -> list[list[str]]:
    """Returns the commands of an action. Those of `setup` make and copy the file `bundle`."""
    if action == "create":
        return [pod.create(_TYPE.value, _RUNTIME.value, _SPOT.value)]
    if action == "setup":
        # A bundle has the commits, so results can name the commit that made them.
        make_bundle = ["git", "bundle", "create", bundle, "HEAD"]
        return [make_bundle, pod.copy(bundle), pod.ssh(_INSTALL)]
    if action == "run":
        return [pod.ssh(run_command(arguments))]
    if action == "stop":
        return [pod.ssh(_STOP)]
    if action == "status":
        return [pod.describe()]
    return [pod.delete()]


def main(arguments: list[str]) -> None:
    """Does what --action says."""
    action = _ACTION.value
    if arguments and action != "run":
        cli.fail(
            f"--action={action} takes no arguments of rethinking.main: {shlex.join(arguments)}"
        )
    pod = Slice(_NAME.value, _ZONE.value, _PROJECT.value)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _BUNDLE if _DRY_RUN.value else os.path.join(folder, _BUNDLE)
        try:
            todo = commands(pod, action, arguments, bundle)
        except InputError as error:
            cli.fail(error)
        if _DRY_RUN.value:
            for command in todo:
                print(shlex.join(command))
            return
        _require_tools(todo)
        if action == "setup":
            _warn_of_changes()
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
