"""Makes one run on a Slurm cluster, with one process for each GPU, or a sweep as a job array.

    python -m launch.slurm [--nodes=N] [--gpus_per_node=M] [--time=LIMIT] [--partition=NAME] \\
        [--sbatch=OPTION=VALUE ...] [--dry_run] -- ARGUMENTS OF rethinking.main
    python -m launch.slurm --sweep [--at_once=K] [...] -- ARGUMENTS OF launch.sweep

This writes a batch script and submits it. Run it on a login node, in the folder of this
repository, with the Python environment active. The nodes must see both. --before='module load
cuda' adds a shell command before the run. --prefix='apptainer exec --nv image.sif' runs Python in
a container.

When the time limit ends, or Slurm preempts the job, the run is saved. The job then goes back into
the queue and continues, until the run is finished. With --sweep, each row and seed is a task of a
job array.
See docs/slurm.md.
"""

import shutil
import subprocess
import sys

from absl import app, flags

from launch import batch_script, run_list
from rethinking import cli
from rethinking.errors import InputError, require

_SWEEP = flags.DEFINE_boolean(
    "sweep", False, "The arguments are those of launch.sweep. Each of its runs becomes a task."
)
_AT_ONCE = flags.DEFINE_integer(
    "at_once", None, "With --sweep: the most tasks that run at the same time.", lower_bound=1
)
_NODES = flags.DEFINE_integer("nodes", 1, "Number of machines.", lower_bound=1)
_GPUS = flags.DEFINE_integer(
    "gpus_per_node",
    1,
    "GPUs on each machine. Each GPU gets one process. 0: one process without a GPU.",
    lower_bound=0,
)
_GRES = flags.DEFINE_string(
    "gres",
    None,
    "The name of the GPUs as a generic resource, such as gpu or gpu:a100. Give it if sbatch "
    "refuses --gpus-per-node.",
)
_CPUS = flags.DEFINE_integer(
    "cpus_per_task", 8, "Processor cores for each process, which prepare its data.", lower_bound=1
)
_TIME = flags.DEFINE_string(
    "time", "24:00:00", "Time limit, after which the job goes back into the queue."
)
_PARTITION = flags.DEFINE_string(
    "partition", None, "The partition (queue). Default: the default partition of the cluster."
)
_SBATCH = flags.DEFINE_multi_string(
    "sbatch", [], "An option for sbatch, such as --sbatch=account=ME or --sbatch=exclusive."
)
_SRUN = flags.DEFINE_multi_string(
    "srun", [], "An option for srun, such as --srun=container-image=IMAGE."
)
_BEFORE = flags.DEFINE_multi_string(
    "before", [], "A shell command before the run, such as --before='module load cuda'."
)
_PREFIX = flags.DEFINE_string(
    "prefix", "", "Words before Python, such as --prefix='apptainer exec --nv image.sif'."
)
_PYTHON = flags.DEFINE_string(
    "python", "", "The Python of the nodes or the container. Default: the Python that runs this."
)
_GRACE = flags.DEFINE_integer(
    "grace_seconds", 60, "Seconds before the time limit in which the run is saved.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the script and submit nothing.")


def _options(num_runs: int) -> dict[str, str | int | None]:
    """The options of sbatch that the flags ask for."""
    options: dict[str, str | int | None] = {}
    if _SWEEP.value:
        at_once = "" if _AT_ONCE.value is None else f"%{_AT_ONCE.value}"
        options["array"] = f"0-{num_runs - 1}{at_once}"
    options["nodes"] = _NODES.value
    options["ntasks-per-node"] = _GPUS.value or 1
    if _GPUS.value and _GRES.value:
        options["gres"] = f"{_GRES.value}:{_GPUS.value}"
    elif _GPUS.value:
        options["gpus-per-node"] = _GPUS.value
    options["cpus-per-task"] = _CPUS.value
    options["time"] = _TIME.value
    if _PARTITION.value:
        options["partition"] = _PARTITION.value
    return options


def _script(arguments: list[str]) -> tuple[str, list[run_list.Run]]:
    """The batch script and its runs. Raises InputError for anything that cannot work."""
    require(
        _SWEEP.value or _AT_ONCE.value is None,
        f"--at_once={_AT_ONCE.value} is for the tasks of a sweep. Add --sweep.",
    )
    require(
        _GRES.value is None or _GPUS.value > 0,
        f"--gres={_GRES.value} has no effect with --gpus_per_node=0. Choose a number of GPUs.",
    )
    batch_script.check_options(_SBATCH.value, _GPUS.value)
    runs = run_list.sweep(arguments) if _SWEEP.value else run_list.single(arguments)
    processes = _NODES.value * (_GPUS.value or 1)
    for run in runs:
        run_list.check_devices(run, processes, processes)
    text = batch_script.script(
        runs,
        _options(len(runs)),
        _SBATCH.value,
        _CPUS.value,
        _GRACE.value,
        is_array=_SWEEP.value,
        before=_BEFORE.value,
        srun=_SRUN.value,
        prefix=_PREFIX.value,
        python=_PYTHON.value,
    )
    return text, runs


def main(arguments: list[str]) -> None:
    """Submits the run or the sweep, or prints the script."""
    try:
        text, runs = _script(arguments)
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
    if _SWEEP.value:
        for number, run in enumerate(runs):
            print(f"task {number}: {run}", flush=True)
    sys.exit(subprocess.run(["sbatch"], input=text, text=True).returncode)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse_launcher_flags)
