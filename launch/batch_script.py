"""The batch script of a Slurm job: one run, or one run for each task of a job array.

The job goes back into the queue until its run is finished. The script handles three cases:

- Near the time limit, Slurm sends USR1 to the batch script alone (--signal=B:USR1). The script
  sends SIGTERM to the processes of the run, which save it. If they take too long, the script puts
  the job back without waiting for them. Otherwise Slurm would kill the script together with them.
- A preempted job gets SIGTERM. The script ignores it, so that it can put the job back once the run
  is saved.
- The number of a job array's first task is also that of the whole array. So the script names a task
  by ARRAY_TASK.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

from launch.run_list import Run
from rethinking.errors import InputError, require

_SCRIPT = """\
#!/bin/bash
{options}
cd {folder} || exit
{before}\
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}
{run}
requeue() {{
  state=$(squeue --noheader --jobs="$job" --format=%T)
  if [ "$state" = RUNNING ]; then scontrol requeue "$job"; fi
}}
late=
save() {{
  late=$((SECONDS + {patience}))
  scancel --signal=TERM "$job"
}}
trap save USR1
trap : TERM
srun --label --kill-on-bad-exit=1 --cpus-per-task={cpus} {srun}{python} -u -m rethinking.main \\
  --distributed "${{arguments[@]}}" &
step=$!
while kill -0 "$step" 2>/dev/null; do
  if [ -n "$late" ] && [ "$SECONDS" -ge "$late" ]; then
    late=
    echo "Not saved within {patience} s. Back into the queue, to continue from the last checkpoint."
    echo "Raise --grace_seconds."
    requeue
  fi
  sleep 1
done
wait "$step" || exit
{is_finished} && exit
echo "Saved, but not finished: back into the queue."
requeue
"""
# A damaged result counts as well: running again would not repair it.
_IS_FINISHED = (
    "import sys; from etils import epath; "
    "sys.exit(not (epath.Path(sys.argv[1]) / 'result.json').exists())"
)


def script(
    runs: Sequence[Run],
    options: Mapping[str, str | int | None],
    more: Sequence[str],
    cpus: int,
    grace: int,
    is_array: bool = False,
    before: Sequence[str] = (),
    srun: Sequence[str] = (),
    prefix: str = "",
    python: str = "",
) -> str:
    """Returns the batch script of a run, or of a job array with a task for each of `runs`.

    `options` and `more` are options of sbatch, `srun` those of srun. `cpus` is the number of cores
    of each process, and `grace` the seconds before the time limit in which a run is saved. `before`
    are shell commands that come first. `prefix` goes before `python`. The default of `python` is
    the Python that runs this.
    Raises InputError for options that sbatch cannot read from a script.
    """
    name = runs[0].config.experiment if is_array else runs[0].config.row
    options = {"job-name": re.sub(r"[^\w.=+-]+", "_", name)} | dict(options)
    options |= {"signal": f"B:USR1@{grace}", "requeue": None, "open-mode": "append"}
    lines = [option if value is None else f"{option}={value}" for option, value in options.items()]
    lines += more
    for line in lines:
        if not re.fullmatch(r"[^\s'\"\\#]+", line):
            raise InputError(
                f"--{line}: a batch script cannot hold this option. Use no spaces, quotes, "
                "backslashes or #."
            )
    python = " ".join([prefix, shlex.quote(python or sys.executable)]).strip()
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH --{line}" for line in lines),
        folder=shlex.quote(os.getcwd()),
        before="".join(f"{line}\n" for line in before),
        run=_cases(runs) if is_array else _variables(runs[0]),
        cpus=cpus,
        srun="".join(f"{shlex.quote(f'--{option}')} " for option in srun),
        python=python,
        patience=_patience(grace),
        is_finished=f'{python} -c {shlex.quote(_IS_FINISHED)} "$workdir"',
    )


def check_options(more: Sequence[str], gpus_per_node: int) -> None:
    """Raises InputError for an option of sbatch that the script sets itself."""
    for option in more:
        name = option.partition("=")[0]
        require(
            name not in _DECIDED,
            f"--sbatch={option}: the script decides this itself. {_DECIDED.get(name)}",
        )
        require(
            not gpus_per_node or not re.fullmatch("gres|gpus.*", name),
            f"--sbatch={option}: the script would request the GPUs twice. Use --gpus_per_node, and "
            "add --gres=NAME if the cluster needs a generic resource.",
        )


_DECIDED = {
    "nodes": "Use --nodes.",
    "ntasks": "Use --nodes and --gpus_per_node.",
    "ntasks-per-node": "Use --gpus_per_node.",
    "array": "Use --sweep, and --at_once for the number of tasks at once.",
    "signal": "Use --grace_seconds.",
    "no-requeue": "Leave it out: the job goes back into the queue until its run is finished.",
}


def _patience(grace: int) -> int:
    """Seconds that a save may take. After them, the script must put the job back."""
    return max(1, grace - max(5, grace // 4))


def _variables(run: Run) -> str:
    return f"workdir={shlex.quote(run.workdir)}\narguments=({shlex.join(run.arguments)})"


def _cases(runs: Sequence[Run]) -> str:
    lines = ['case "$SLURM_ARRAY_TASK_ID" in']
    for number, run in enumerate(runs):
        lines += [f"{number})", _variables(run), ";;"]
    return "\n".join([*lines, "esac"])
