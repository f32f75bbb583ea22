"""Batches made ahead by grain, in threads and in worker processes."""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

import grain
from absl import flags

from rethinking.errors import InputError

RowT = TypeVar("RowT")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process makes its batches. None of these settings changes the content of a row.

    Attributes:
        rows: the rows of each batch that this process makes; None means all.
        num_threads: number of threads that decode. Each keeps a core busy.
        num_workers: number of processes that the threads are spread over. In one process, threads
            wait for Python's lock. 0 means that no other process is started.
        skip_bad: whether a bad record gets the weight 0. Otherwise it raises InputError.
    """

    rows: slice | None = None
    num_threads: int = 8
    num_workers: int = 0
    skip_bad: bool = False


def read_batches(
    example: Callable[[int], RowT],
    batch_size: int,
    first_step: int,
    num_batches: int | None,
    reading: Reading,
) -> Generator[RowT, None, None]:
    """Yields `num_batches` batches, or batches without end if that is None.

    Args:
        example: a function from a position in the sequence of examples to a row.
        batch_size: number of rows of a batch, over all processes. Batch t consists of the positions
            t * batch_size to (t + 1) * batch_size - 1.
        first_step: number of the first batch.
        num_batches: number of batches.
        reading: which rows of each batch this process makes, and how.

    Raises InputError if a worker process has been killed.
    """
    rows = range(batch_size)[reading.rows or slice(None)]
    workers = max(1, reading.num_workers)
    threads = max(1, reading.num_threads // workers)
    if num_batches is None:
        num_items = sys.maxsize
    else:
        batches_per_worker = -(-num_batches // workers)
        num_items = batches_per_worker * workers * len(rows)
    item = functools.partial(_item, example, batch_size, rows, workers, first_step)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=rows_ahead(threads))
    dataset = grain.MapDataset.range(num_items).map(item).to_iter_dataset(options).batch(len(rows))
    batches = iter(_prefetch(dataset, reading.num_workers))
    try:
        yield from itertools.islice(batches, num_batches)
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise InputError(
            "a worker process that reads images has ended by itself, perhaps because too little "
            f"memory was left ({str(error).partition('.')[0]}). Choose fewer "
            "config.data.num_workers or config.data.num_threads. Then the same command continues."
        ) from error
    finally:
        batches.close()


def rows_ahead(num_threads: int) -> int:
    """The number of rows that are made ahead by so many threads, beside whole batches."""
    return 4 * num_threads


def _item(
    example: Callable[[int], RowT],
    batch_size: int,
    rows: range,
    workers: int,
    first_step: int,
    number: int,
) -> RowT:
    """Item `number` of grain's data set.

    grain deals the items w, w + workers, ... to worker w. It takes one batch from each worker in
    turn. The items are numbered such that the batches then come in order.
    """
    turn, worker = divmod(number, workers)
    step = first_step + turn // len(rows) * workers + worker
    return example(step * batch_size + rows[turn % len(rows)])


def _prefetch(dataset: grain.IterDataset, num_workers: int) -> grain.IterDataset:
    """The same batches, made ahead: in `num_workers` processes, or in a thread if that is 0."""
    if num_workers == 0:
        return grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2)
    # grain reads flags of its own, also in programs that do not use absl.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=num_workers)
    return dataset.mp_prefetch(options, _end_with_parent)


def _end_with_parent(worker: int, num_workers: int) -> None:
    """Makes a worker end when its parent process ends it or is gone.

    The worker ignores SIGTERM. If all processes of a program receive that signal, the parent
    decides when the worker ends.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
