"""How many threads and worker processes read a stream, by what the host has."""

import pathlib
import shutil

from rethinking.errors import InputError, require

# The values of `num_threads` and `num_workers` that leave the choice to `choose`.
AUTOMATIC_THREADS, AUTOMATIC_WORKERS = 0, -1
# Threads that wait for a disk need no core.
FEWEST_THREADS = 16
# One process reads some 2,000 to 3,000 images a second at most, because Python runs one of its
# threads at a time. About four cores decode as many.
CORES_OF_A_WORKER = 4
# A worker takes seconds to start. In that time, the threads of one process read as many images.
FEWEST_IMAGES = 10_000
# Worker processes pass their batches through this folder, which lies in memory.
SHARED_MEMORY = pathlib.Path("/dev/shm")


def choose(
    num_threads: int, num_workers: int, cores: int, batch_bytes: int, num_images: int | None = None
) -> tuple[int, int]:
    """The number of threads and of worker processes that a process reads with.

    Args:
        num_threads: a number, or `AUTOMATIC_THREADS`: as many as cores, but at least 16.
        num_workers: a number, or `AUTOMATIC_WORKERS`: one for four cores. It is 0 for fewer than 8
            cores, where there are few images to read, and where there is too little shared memory.
        cores: those that this process may use alone.
        batch_bytes: the size of this process's part of a batch.
        num_images: how many images this process will read; None: without end.

    Raises:
        InputError: if there are fewer cores than `num_workers`, or too little shared memory.
    """
    if num_threads == AUTOMATIC_THREADS:
        num_threads = max(FEWEST_THREADS, cores)
    room = _room(batch_bytes)
    if num_workers == AUTOMATIC_WORKERS:
        is_short = num_images is not None and num_images < FEWEST_IMAGES
        if cores < 2 * CORES_OF_A_WORKER or is_short:
            return num_threads, 0
        return num_threads, int(min(cores // CORES_OF_A_WORKER, num_threads, room))
    require(
        num_workers <= cores,
        f"config.data.num_workers={num_workers}: a worker process needs a processor core, and this "
        f"process has {cores}. Choose at most as many, or 0.",
    )
    if num_workers > room:
        raise InputError(
            f"config.data.num_workers={num_workers}: each worker process holds two batches of "
            f"{batch_bytes / 1e6:,.0f} MB in {SHARED_MEMORY}, which has room for {room} worker"
            f"{'' if room == 1 else 's'}. Choose a smaller number, or give the folder more memory: "
            "a container takes the option --shm-size."
        )
    return num_threads, num_workers


def _room(batch_bytes: int) -> int:
    """For how many worker processes there is shared memory. Each holds up to two batches there."""
    if not SHARED_MEMORY.is_dir():  # macOS has no such folder, and no such limit
        return 2**31
    return shutil.disk_usage(SHARED_MEMORY).free // (2 * batch_bytes)
