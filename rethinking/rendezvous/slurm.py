"""The GPUs that one task of a Slurm job takes.

Some clusters show a task only its own GPUs, others show it all GPUs that the job has on its node.
JAX would take the GPU with the task's number there, which exists in the second case alone.
"""

import re
from collections.abc import Mapping

from rethinking.errors import InputError


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs that this task takes, as positions among those that it sees; None: all of them.

    `environment` has the variables that srun sets. Raises InputError if the tasks of this node
    cannot divide its GPUs evenly.
    """
    number, tasks = int(environment["SLURM_LOCALID"]), _tasks_here(environment)
    if tasks == 1:
        return None
    visible = _visible(environment)
    if visible is None:  # a cluster that does not hand out GPUs, so each task sees all of them
        return [number]
    in_job = _count(environment.get("SLURM_GPUS_ON_NODE", ""))
    if not visible or (in_job is not None and visible < in_job):  # these are the task's own
        return None
    if in_job is None and visible < tasks:
        return None
    if visible % tasks:
        raise InputError(
            f"{tasks} tasks on {environment.get('SLURMD_NODENAME', 'a node')} cannot divide its "
            f"{visible} GPUs evenly. Start one task for each GPU, or let Slurm bind them: "
            "srun --gpus-per-task=1."
        )
    share = visible // tasks
    return list(range(number * share, (number + 1) * share))


def _tasks_here(environment: Mapping[str, str]) -> int:
    """The number of tasks on this node."""
    # "8(x4),3": four nodes with 8 tasks each, then one with 3.
    listed = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", listed):
        counts += [int(count)] * int(times or 1)
    node = _count(environment.get("SLURM_NODEID", "")) or 0
    if node < len(counts):
        return counts[node]
    nodes = _count(environment.get("SLURM_STEP_NUM_NODES", "")) or 1
    return -(-int(environment["SLURM_NTASKS"]) // nodes)


def _visible(environment: Mapping[str, str]) -> int | None:
    """The number of GPUs that this task sees; None if Slurm has not said."""
    names = environment.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return None
    return len([name for name in names.split(",") if name.strip() and name.strip() != "-1"])


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
