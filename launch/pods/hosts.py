"""The shell commands that `gcloud ... ssh` runs on the hosts of a slice, and their answers."""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Sequence

from launch.run_list import Run

BUNDLE = "rethinking.bundle"
# The Python of the hosts may be older than 3.11. uv installs a newer one.
INSTALL = f"""\
set -e
git init --quiet rethinking && cd rethinking
git fetch --quiet ../{BUNDLE} HEAD && git checkout --quiet --force FETCH_HEAD
[ -x ~/.local/bin/uv ] || \
  curl --fail --silent --show-error --location https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable '.[tpu,gcs,imagenet]'"""
# With the brackets, a pattern does not match the command line of pkill itself.
STOP = (
    "pkill --full '[r]ethinking.main' && mkdir -p ~/.rethinking && touch ~/.rethinking/stopped"
    " || echo nothing is running"
)
# Python processes that hold chips, and the file by which libtpu marks them as taken.
FREE = """\
pkill --signal KILL --full '[l]aunch.pods.agent'
pkill --signal KILL --full '[r]ethinking.main'
sudo lsof -t -w -a -c python /dev/accel* /dev/vfio/* 2>/dev/null | sort -u |
  xargs --no-run-if-empty sudo kill -KILL
sudo rm -f /tmp/libtpu_lockfile"""
FORCE_STOP = f"mkdir -p ~/.rethinking && touch ~/.rethinking/stopped\n{FREE}"
ASK = """\
s=$(cat ~/.rethinking/state 2>/dev/null || echo none new)
case "$s" in
*" running "*) grep -qs 'launch.pods.[a]gent' /proc/${s##* }/cmdline || s="${s%% *} died";;
esac
echo "host $(hostname): $s\""""
LAST_LINES = "echo; hostname; tail --lines=20 ~/.rethinking/log"
FOLLOW = "tail --lines=100 --follow=name --retry ~/.rethinking/log"


def start(job: str, runs: Sequence[Run], before: Sequence[str] = (), deadline: str = "") -> str:
    """Starts the runs on a host, under the name `job`. They go on when the connection ends.

    First it ends processes of earlier runs, and runs the commands `before`. `deadline` is a command
    that runs beside the runs.
    """
    listed = json.dumps([{"workdir": run.workdir, "arguments": run.arguments} for run in runs])
    lines = [
        FREE,
        "mkdir -p ~/.rethinking && cd ~/rethinking || exit",
        "rm -f ~/.rethinking/state ~/.rethinking/stopped",
        *(f"{line} || exit" for line in before),
        _detached(
            f'sh -c \'echo "{job} running $$" > ~/.rethinking/state; exec "$@"\' sh'
            # The quotes keep `FREE` from finding this command itself.
            f" .venv/bin/python -u -m launch.pods.'agent' {job} {shlex.quote(listed)}"
        ),
        "while [ ! -e ~/.rethinking/state ]; do sleep 0.1; done",
    ]
    if deadline:
        lines.append("pkill --full '[r]ethinking-deadline'")
        lines.append(_detached(deadline))
    return "\n".join(lines)


def delete_after(seconds: float, delete: Sequence[str]) -> str:
    """A command with which a host deletes its own slice after some seconds.

    The service account of the slice must be allowed to do so. `start` finds an earlier such command
    by its name, and ends it.
    """
    script = f"sleep {seconds:.0f}; exec {shlex.join(delete)}"
    return f"sh -c {shlex.quote(script)} rethinking-'deadline'"


def _detached(command: str) -> str:
    return f"setsid nohup {command} >> ~/.rethinking/log 2>&1 < /dev/null &"


def name_job(runs: Sequence[Run]) -> str:
    """A name for these runs. It tells hosts that make them from hosts that make other runs."""
    arguments = json.dumps([run.arguments for run in runs])
    return hashlib.sha256(arguments.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Host:
    """What a host answers to `ASK`.

    `state` is one of launch.pods.agent, or "new": nothing was started, or "died": the process that
    made the runs has ended without a word, or "busy": the host makes other runs.
    """

    name: str
    state: str
    code: int = 0  # the exit code of a failed run
    workdir: str = ""  # of a run that failed or was saved


def read(answers: str, job: str) -> list[Host]:
    """The hosts whose answers are in the output of `ASK`, in any order. `job` names our runs."""
    found = {}
    for name, its_job, text in re.findall(r"^host (\S+): (\S+) (.*)$", answers, re.MULTILINE):
        state, _, rest = text.partition(" ")
        code, workdir = 0, ""
        if its_job != job:
            state = "busy" if state == "running" else "new"
        elif state == "failed":
            number, _, workdir = rest.partition(" ")
            code = int(number)
        elif state == "saved":
            workdir = rest
        found[name] = Host(name, state, code, workdir)
    return list(found.values())
