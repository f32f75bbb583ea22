"""Makes one run on a TPU pod slice of Google Cloud, with a process on each of its hosts.

    python -m launch.tpu_pod --action=create --name=NAME --zone=ZONE --accelerator_type=v5litepod-16 [--spot]
    python -m launch.tpu_pod --action=setup --name=NAME --zone=ZONE
    python -m launch.tpu_pod --action=run --name=NAME --zone=ZONE -- ARGUMENTS OF rethinking.main
    python -m launch.tpu_pod --action=stop --name=NAME --zone=ZONE
    python -m launch.tpu_pod --action=status --name=NAME --zone=ZONE
    python -m launch.tpu_pod --action=delete --name=NAME --zone=ZONE

`setup` installs this repository, as committed, on all hosts; `stop` has the run saved and ended. With --dry_run the
commands are only printed, ready to be pasted into a shell. They need the Google Cloud CLI, with a project chosen
(gcloud init) or given (--project). A slice costs money from create to delete. See docs/tpu_pod.md.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

from rethinking import cli
from rethinking.errors import InputError

_ACTION = flags.DEFINE_enum(
    "action", None, ["create", "setup", "run", "stop", "status", "delete"], "What to do."
)
_NAME = flags.DEFINE_string("name", None, "The slice's name.")
_ZONE = flags.DEFINE_string("zone", None, "The zone it is in, such as us-west4-a.")
_PROJECT = flags.DEFINE_string(
    "project", None, "The Google Cloud project; gcloud's own choice if not given."
)
_TYPE = flags.DEFINE_string("accelerator_type", "v5litepod-16", "create: kind and number of chips.")
_RUNTIME = flags.DEFINE_string(
    "runtime_version", None, "create: the hosts' system; chosen by --accelerator_type."
)
_SPOT = flags.DEFINE_boolean("spot", False, "create: cheaper, and may be taken away at any moment.")
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Only print the commands.")

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
# The hosts' Python may be older than 3.11; uv brings one.
_INSTALL = f"""\
set -e
git init --quiet rethinking && cd rethinking
git fetch --quiet ../{_BUNDLE} HEAD && git checkout --quiet --force FETCH_HEAD
[ -x ~/.local/bin/uv ] || curl --fail --silent --show-error --location https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable '.[tpu,gcs,imagenet]'"""
_STOP = "pkill --full '[r]ethinking.main' || echo nothing is running"  # the brackets keep it from finding itself


class Slice:
    """The gcloud commands about one TPU slice."""

    def __init__(self, name: str, zone: str, project: str | None = None):
        self._name = name
        self._where = [f"--zone={zone}", *([f"--project={project}"] if project else [])]

    def create(
        self, accelerator_type: str, runtime_version: str | None = None, spot: bool = False
    ) -> list[str]:
        """Raises InputError for a kind of chip whose system is unknown."""
        kind = accelerator_type.partition("-")[0]
        if not runtime_version:
            require_known(
                kind,
                RUNTIMES,
                f"--accelerator_type={accelerator_type}: give its --runtime_version. Unknown kind",
            )
        return self._command(
            "create",
            self._name,
            f"--accelerator-type={accelerator_type}",
            f"--version={runtime_version or RUNTIMES[kind]}",
            *(["--spot"] if spot else []),
        )

    def copy(self, file: str) -> list[str]:
        """Copies a file to the home folder of every host."""
        return self._command("scp", file, f"{self._name}:", "--worker=all")

    def ssh(self, command: str) -> list[str]:
        """Runs a shell command on every host at once."""
        return self._command("ssh", self._name, "--worker=all", f"--command={command}")

    def describe(self) -> list[str]:
        """Prints CREATING, READY, PREEMPTED, ..."""
        return self._command("describe", self._name, "--format=value(state)")

    def delete(self) -> list[str]:
        """Deletes the slice, and with it whatever is on its hosts, without asking."""
        return self._command("delete", self._name, "--quiet")

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, *self._where]


def run_command(arguments: list[str]) -> str:
    """What each host runs; raises InputError for arguments that rethinking.main would refuse."""
    _, workdir = cli.check_run(arguments)
    if not workdir.startswith(("gs://", "/")):
        raise InputError(
            f"--workdir={workdir} would be another folder on every host. Choose one in a bucket, "
            "gs://BUCKET/FOLDER, or the absolute path of one that all hosts see."
        )
    return f"cd rethinking && exec .venv/bin/python -u -m rethinking.main --distributed {shlex.join(arguments)}"


def commands(pod: Slice, action: str, arguments: list[str], bundle: str) -> list[list[str]]:
    """The commands that an action consists of; `setup` writes the repository to the file `bundle` on the way."""
    if action == "create":
        return [pod.create(_TYPE.value, _RUNTIME.value, _SPOT.value)]
    if action == "setup":
        # As a bundle the repository arrives with its commits, so that results name the one that made them.
        return [["git", "bundle", "create", bundle, "HEAD"], pod.copy(bundle), pod.ssh(_INSTALL)]
    if action == "run":
        return [pod.ssh(run_command(arguments))]
    return [{"stop": pod.ssh(_STOP), "status": pod.describe(), "delete": pod.delete()}[action]]


def main(arguments: list[str]) -> None:
    """Does what --action says."""
    if arguments and _ACTION.value != "run":
        cli.fail(
            f"--action={_ACTION.value} takes no arguments of rethinking.main: {shlex.join(arguments)}"
        )
    pod = Slice(_NAME.value, _ZONE.value, _PROJECT.value)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _BUNDLE if _DRY_RUN.value else os.path.join(folder, _BUNDLE)
        try:
            todo = commands(pod, _ACTION.value, arguments, bundle)
        except InputError as error:
            cli.fail(error)
        if _DRY_RUN.value:
            print("\n".join(map(shlex.join, todo)))
            return
        for command in todo:
            if not shutil.which(command[0]):
                cli.fail(
                    f"{command[0]} is not here. For gcloud see https://cloud.google.com/sdk/docs/install; "
                    "--dry_run shows the commands without it."
                )
        if (
            _ACTION.value == "setup"
            and subprocess.run(["git", "diff", "--quiet", "HEAD"]).returncode
        ):
            print("warning: what is not committed is not copied", file=sys.stderr)
        for command in todo:
            if code := subprocess.run(command).returncode:
                sys.exit(code)


if __name__ == "__main__":
    app.run(
        main,
        flags_parser=lambda argv: cli.parse_launcher_flags(
            argv, required=("action", "name", "zone")
        ),
    )
