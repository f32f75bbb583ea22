"""Sets too large for memory, such as ImageNet: batches read, decoded and distorted by grain while the network trains.

The training examples are an endless sequence: number q is record `permutation(seed, q // n)[q mod n]` of n, so that
every epoch has each record exactly once, in an order of its own. Batch t of size b is numbers t * b to t * b + b - 1,
of which each process reads the rows that are its own. What a batch holds is a function of the seed and t alone: how
many steps are done is all that needs to be kept to continue.
"""

import bisect
import dataclasses
import functools
import importlib.util
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Float32, Int32, Int64, UInt8

from rethinking.data.source import (
    Dataset,
    Source,
    check_shards,
    check_subset,
    find,
    open_records,
    subset,
)
from rethinking.errors import InputError

_LOG = logging.getLogger(__name__)
# Streams of randomness within a seed.
_ORDER, _BOX = 0, 1


class Batch(NamedTuple):
    """Examples as the host hands them to the devices."""

    images: UInt8[np.ndarray, "b s s 3"]
    labels: Int32[np.ndarray, " b"]
    indices: Int64[
        np.ndarray, " b"
    ]  # positions in the split on disk; -1 for what only fills up the last batch
    epochs: Int32[np.ndarray, " b"]  # with the index, what draws for an example depend on
    weights: Float32[
        np.ndarray, " b"
    ]  # 1, or 0 for rows that do not count: padding, and records that are skipped


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a split on disk, by their index."""

    source: Source
    split: str
    data: Any  # TFDS's

    def read(self, index: int) -> tuple[bytes, int]:
        """The encoded image and the label. Raises InputError if the record cannot be read or its label is unknown."""
        try:
            record = self.data[index]
            encoded, label = record["image"], record["label"]
        except Exception as error:  # The reader and protobuf each have their own.
            raise self.unusable(index, str(error)) from error
        if encoded is None or label is None:
            raise self.unusable(index, "it has no image or no label")
        if not 0 <= label < self.source.info.num_classes:
            raise self.unusable(
                index, f"its label is {label} of {self.source.info.num_classes} classes"
            )
        return encoded, label

    def unusable(self, index: int, cause: str) -> InputError:
        """The error to raise for a record, with the file that it is in and the record's place in it."""
        files = self.source.shards[self.split]
        starts = list(itertools.accumulate(files.values(), initial=0))
        shard = bisect.bisect_right(starts, index) - 1
        return InputError(
            f"{list(files)[shard]}: record {index - starts[shard]}, which is {index} of the split {self.split}, cannot "
            f"be used: {cause}. Set data.skip_bad=True to go on without it, or delete the folder and prepare the data "
            "set again."
        )


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples to use of a split.

    `corrupt`, if any, maps labels [b] and indices [b] to the labels to use instead.
    """

    records: Records
    indices: Int64[np.ndarray, " n"]
    corrupt: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.indices)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process makes its batches: nothing here changes what is in a row.

    Attributes:
        rows: of each batch, those that this process is to read; None: all.
        num_threads: that decode; a core's worth each.
        num_workers: processes to spread them over, where Python's lock makes threads wait; 0: none but this one.
        skip_bad: give records that cannot be used the weight 0 instead of raising InputError.
    """

    rows: slice | None = None
    num_threads: int = 8
    num_workers: int = 0
    skip_bad: bool = False


def check(name: str, data_dir: str | None = None) -> None:
    """Raises InputError unless the set can be streamed.

    Raises:
        InputError: if the extra `imagenet` is not installed; if the set is unknown, not prepared,
            not image classification, without colour, or not in ArrayRecord files; or if one of its
            files is missing or cut short.
    """
    check_shards(_find_coloured(name, data_dir))


def load(
    name: str, data_dir: str | None = None, num_train: int = 0, seed: int = 0, num_test: int = 0
) -> Dataset:
    """The training and the test set, of which nothing is read before batches are asked for.

    Args and errors are those of `rethinking.data.arrays.load`, but that images need not be of one size.
    """
    source = _find_coloured(name, data_dir)
    check_subset(name, source.info, num_train, num_test)

    def split(key: str, total: int, num: int) -> Split:
        return Split(
            Records(source, key, open_records(source, key, decode=False)), subset(total, num, seed)
        )

    info = source.info
    train, test = split("train", info.num_train, num_train), split("test", info.num_test, num_test)
    return Dataset(name, train, test, info.num_classes)


def _find_coloured(name: str, data_dir: str | None) -> Source:
    if name == "digits":
        raise InputError(
            "digits is no TFDS set, so it cannot be streamed: see configs/quickstart.py."
        )
    _check_decoders(name)
    source = find(name, data_dir)
    height, width, channels = source.info.image_shape
    if channels != 3:
        remedy = "held in memory" if min(height, width) > 0 else "prepared with 3 channels first"
        raise InputError(
            f"The images of {name} have no 3 channels: such sets are not streamed, but {remedy}."
        )
    return source


def _check_decoders(name: str) -> None:
    for module, package in (("simplejpeg", "simplejpeg"), ("cv2", "opencv-python-headless")):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"{name} is streamed, which needs {package}. It is not installed. Run: "
                'pip install -e ".[imagenet]"'
            )


def train_batches(
    split: Split,
    batch_size: int,
    image_size: int,
    seed: int,
    box: bool,
    reading: Reading,
    first_step: int = 0,
) -> "Stream":
    """Batches without end, from that of step `first_step` on.

    Args:
        split: what to read.
        batch_size: over all processes; of each batch this process gets `reading.rows`.
        image_size: sides of the images, in pixels.
        seed: of the epochs' orders, and, with an example's epoch and index, of its box.
        box: a random box of each image (`decode.random_view`), else the middle (`decode.central_view`).
        reading: which rows, and how.
        first_step: how many batches to leave out, which takes no time.
    """
    examples = _Examples(split.records, split.indices, image_size, reading.skip_bad)
    example = functools.partial(examples.train_example, seed=seed, box=box)
    return Stream(_read(example, batch_size, first_step, None, reading), split.corrupt)


def eval_batches(split: Split, batch_size: int, image_size: int, reading: Reading) -> "Stream":
    """All examples once, in order, cut to the middle (`decode.central_view`); rows of weight 0 fill the last batch.

    Args as for `train_batches`. Every process gets the same number of batches.
    """
    examples = _Examples(split.records, split.indices, image_size, reading.skip_bad)
    num_batches = -(-len(split) // batch_size)
    return Stream(_read(examples.eval_example, batch_size, 0, num_batches, reading), split.corrupt)


class Stream(Iterator[Batch]):
    """Batches, made ahead in the background until `close`."""

    def __init__(self, batches: Generator[Batch, None, None], corrupt: Callable | None):
        self._batches, self._corrupt = batches, corrupt
        weakref.finalize(
            self, batches.close
        )  # also when the program ends: grain's threads would not outlive it well

    def __next__(self) -> Batch:
        """The next batch. Raises InputError for a record that cannot be used, unless such are skipped."""
        batch = next(self._batches)
        return (
            batch._replace(labels=self._corrupt(batch.labels, batch.indices))
            if self._corrupt
            else batch
        )

    def close(self) -> None:
        """Ends the reading; there are no more batches then."""
        self._batches.close()


def _read(
    example: Callable[[int], Batch],
    batch_size: int,
    first_step: int,
    num_batches: int | None,
    reading: Reading,
) -> Generator[Batch, None, None]:
    """Yields `num_batches` batches of this process's rows, from that of `first_step` on; None: without end."""
    rows = range(batch_size)[reading.rows or slice(None)]
    workers = max(1, reading.num_workers)
    threads = max(1, reading.num_threads // workers)
    item = functools.partial(_item, example, batch_size, rows, workers, first_step)
    num_items = (
        sys.maxsize if num_batches is None else -(-num_batches // workers) * workers * len(rows)
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    dataset = grain.MapDataset.range(num_items).map(item).to_iter_dataset(options).batch(len(rows))
    if reading.num_workers:
        if (
            not flags.FLAGS.is_parsed()
        ):  # Grain reads flags of its own, also in programs that know nothing of absl.
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), _end_with_parent
        )
    else:
        dataset = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2)
    batches = iter(dataset)
    try:
        yield from itertools.islice(batches, num_batches)
    finally:
        batches.close()


def _end_with_parent(worker: int, num_workers: int) -> None:
    """Has a worker end when the process that it reads for ends it, or is gone: a SIGTERM to all processes of a program
    is for that one to act on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _item(
    example: Callable[[int], Batch],
    batch_size: int,
    rows: range,
    workers: int,
    first_step: int,
    number: int,
) -> Batch:
    # Of the items, grain deals number w, w + workers, ... to worker w, and takes a batch from each in turn.
    turn, worker = divmod(number, workers)
    step = first_step + turn // len(rows) * workers + worker
    return example(step * batch_size + rows[turn % len(rows)])


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes single rows, in threads and in worker processes."""

    records: Records
    indices: Int64[np.ndarray, " n"]
    image_size: int
    skip_bad: bool

    def train_example(self, position: int, seed: int, box: bool) -> Batch:
        epoch, place = divmod(position, len(self.indices))
        index = int(self.indices[_order(len(self.indices), seed, epoch)[place]])
        return self._read(index, epoch, _generator(seed, _BOX, epoch, index) if box else None)

    def eval_example(self, position: int) -> Batch:
        return (
            self._read(int(self.indices[position]))
            if position < len(self.indices)
            else self._blank(-1)
        )

    def _read(self, index: int, epoch: int = 0, rng: np.random.Generator | None = None) -> Batch:
        from rethinking.data import decode  # Its packages come with the extra `imagenet` alone.

        size = self.image_size
        try:
            encoded, label = self.records.read(index)
            try:
                image = (
                    decode.random_view(encoded, size, rng)
                    if rng
                    else decode.central_view(encoded, size)
                )
            except decode.DecodeError as error:
                raise self.records.unusable(index, str(error)) from error
        except InputError as error:
            if not self.skip_bad:
                raise
            _LOG.warning("Skipped: %s", error)
            return self._blank(index, epoch)
        return Batch(image, np.int32(label), np.int64(index), np.int32(epoch), np.float32(1))

    def _blank(self, index: int, epoch: int = 0) -> Batch:
        image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        return Batch(image, np.int32(0), np.int64(index), np.int32(epoch), np.float32(0))


@functools.lru_cache(maxsize=4)
def _order(num: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The places of the examples in an epoch, a permutation of 0 to num - 1."""
    return _generator(seed, _ORDER, epoch).permutation(num)


def _generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
