"""Makes one run on a Slurm cluster, a process for each GPU: writes a batch script and submits it.

    python -m launch.slurm [--nodes=N] [--gpus_per_node=M] [--time=LIMIT] [--partition=NAME] [--sbatch=OPTION=VALUE ...]
        [--dry_run] -- ARGUMENTS OF rethinking.main

Before its time is up, or when it is preempted, the run is saved; unless it is finished, it goes back into the queue and
continues. Run this where the run is to work: in the repository's folder, with the Python environment active, both on a
file system that the nodes share. See docs/slurm.md.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys

from absl import app, flags

from rethinking import cli
from rethinking.errors import InputError

_NODES = flags.DEFINE_integer("nodes", 1, "Machines.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus_per_node", 1, "GPUs, and processes, on each; 0: one process, no GPU.", lower_bound=0
)
_CPUS = flags.DEFINE_integer(
    "cpus_per_task", 8, "Processor cores for each process, which feed its GPU.", lower_bound=1
)
_TIME = flags.DEFINE_string("time", "24:00:00", "Longest time before it goes back into the queue.")
_PARTITION = flags.DEFINE_string(
    "partition", None, "The queue; the cluster's default if not given."
)
_SBATCH = flags.DEFINE_multi_string(
    "sbatch", [], "More options for sbatch: --sbatch=account=ME --sbatch=exclusive"
)
_GRACE = flags.DEFINE_integer(
    "grace_seconds", 60, "Left for saving when the time is up.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Only print the script.")

# Slurm itself requeues what it preempts. What it ends because the time is up, the script gives back.
_SCRIPT = """\
#!/bin/bash
{options}
cd {folder} || exit
srun --label --kill-on-bad-exit=1 --cpus-per-task={cpus} {command} || exit
{python} -c {is_finished} {workdir} && exit
echo "Saved, but not finished: back into the queue."
[ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" != RUNNING ] || scontrol requeue "$SLURM_JOB_ID"
"""
_IS_FINISHED = (
    "import sys; from rethinking import runs; sys.exit(runs.read_result(sys.argv[1]) is None)"
)


def script(
    arguments: list[str], options: dict[str, str | int | None], more: list[str], cpus: int
) -> str:
    """The batch script that makes the run that `arguments` of rethinking.main describe, and gives it back to the queue.

    Raises InputError for arguments that rethinking.main would refuse, and for options that do not fit on a line.
    """
    config, workdir = cli.check_run(arguments)
    name = re.sub(r"[^\w.=+-]+", "_", config.row)
    named = {"job-name": name} | options | {"requeue": None, "open-mode": "append"}
    lines = [
        option if value is None else f"{option}={value}" for option, value in named.items()
    ] + more
    for line in lines:
        if not re.fullmatch(r"[^\s'\"\\#]+", line):
            raise InputError(
                f"--{line}: sbatch reads its options without spaces, quotes, backslashes and #"
            )
    command = [sys.executable, "-u", "-m", "rethinking.main", "--distributed", *arguments]
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH --{line}" for line in lines),
        folder=shlex.quote(os.getcwd()),
        cpus=cpus,
        command=shlex.join(command),
        python=shlex.quote(sys.executable),
        is_finished=shlex.quote(_IS_FINISHED),
        workdir=shlex.quote(workdir),
    )


def main(arguments: list[str]) -> None:
    """Submits the run, or prints what would be submitted."""
    options = {"nodes": _NODES.value, "ntasks-per-node": _GPUS.value or 1}
    if _GPUS.value:
        options["gpus-per-node"] = _GPUS.value
    options |= {"cpus-per-task": _CPUS.value, "time": _TIME.value}
    if _PARTITION.value:
        options["partition"] = _PARTITION.value
    options["signal"] = f"TERM@{_GRACE.value}"
    try:
        text = script(arguments, options, _SBATCH.value, _CPUS.value)
    except InputError as error:
        cli.fail(error)
    if _DRY_RUN.value:
        print(text, end="")
        return
    if not shutil.which("sbatch"):
        cli.fail(
            "sbatch is not here: run this on a login node of the Slurm cluster, or --dry_run to see the script"
        )
    sys.exit(subprocess.run(["sbatch"], input=text, text=True).returncode)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse_launcher_flags)
