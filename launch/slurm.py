"""Makes one run on a Slurm cluster, with one process for each GPU.

    python -m launch.slurm [--nodes=N] [--gpus_per_node=M] [--time=LIMIT] [--partition=NAME] \\
        [--sbatch=OPTION=VALUE ...] [--dry_run] -- ARGUMENTS OF rethinking.main

This writes a batch script and submits it. Run it on a login node, in the folder of this
repository, with the Python environment active. The nodes must see both.

When the time is up, or Slurm preempts the job, the run is saved. The job then goes back into the
queue and continues, until the run is finished. See docs/slurm.md.
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

_NODES = flags.DEFINE_integer("nodes", 1, "Number of machines.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus_per_node",
    1,
    "GPUs on each machine, and processes: one for each. 0: one process, no GPU.",
    lower_bound=0,
)
_CPUS = flags.DEFINE_integer(
    "cpus_per_task", 8, "Processor cores for each process, which prepare its data.", lower_bound=1
)
_TIME = flags.DEFINE_string(
    "time", "24:00:00", "Time limit, after which the job goes back into the queue."
)
_PARTITION = flags.DEFINE_string(
    "partition", None, "The queue. Default: the default queue of the cluster."
)
_SBATCH = flags.DEFINE_multi_string(
    "sbatch", [], "More options for sbatch: --sbatch=account=ME --sbatch=exclusive"
)
_GRACE = flags.DEFINE_integer(
    "grace_seconds", 60, "Seconds to save the run before the time limit.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the script and submit nothing.")

# Slurm itself puts a preempted job back into the queue. The script does it when the time is up.
_SCRIPT = """\
#!/bin/bash
{options}
cd {folder} || exit
srun --label --kill-on-bad-exit=1 --cpus-per-task={cpus} {command} || exit
{python} -c {is_finished} {workdir} && exit
echo "Saved, but not finished: back into the queue."
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [ "$state" = RUNNING ]; then scontrol requeue "$SLURM_JOB_ID"; fi
"""
# A damaged result counts as well: running again would not repair it.
_IS_FINISHED = (
    "import sys; from etils import epath; "
    "sys.exit(not (epath.Path(sys.argv[1]) / 'result.json').exists())"
)


def script(
    arguments: list[str], options: dict[str, str | int | None], more: list[str], cpus: int
) -> str:
    """Returns the batch script of the run that these arguments of rethinking.main describe.

    `options` and `more` are options of sbatch; `cpus` is the number of cores of each process.
    Raises InputError for arguments that rethinking.main would refuse, and for options that
    sbatch cannot read from a script.
    """
    config, workdir = cli.check_forwarded(arguments)
    name = re.sub(r"[^\w.=+-]+", "_", config.row)
    options = {"job-name": name} | options | {"requeue": None, "open-mode": "append"}
    lines = []
    for option, value in options.items():
        lines.append(option if value is None else f"{option}={value}")
    lines += more
    for line in lines:
        if not re.fullmatch(r"[^\s'\"\\#]+", line):
            raise InputError(
                f"--{line}: a batch script cannot hold this option. Use no spaces, quotes, "
                "backslashes or #."
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
    """Submits the run, or prints the script."""
    options: dict[str, str | int | None] = {
        "nodes": _NODES.value,
        "ntasks-per-node": _GPUS.value or 1,
    }
    if _GPUS.value:
        options["gpus-per-node"] = _GPUS.value
    options["cpus-per-task"] = _CPUS.value
    options["time"] = _TIME.value
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
            "sbatch is not installed here. Run this on a login node of the Slurm cluster, or use "
            "--dry_run to see the script."
        )
    sys.exit(subprocess.run(["sbatch"], input=text, text=True).returncode)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse_launcher_flags)
