"""Sets too large for memory, such as ImageNet: batches are read and decoded during training.

The training examples are an endless sequence. Its element q is record
`permutation(seed, q // n)[q mod n]` of n. Every epoch therefore has each record exactly once, in an
order of its own. Batch t of size b consists of the elements t * b to t * b + b - 1. Each process
reads its own rows of it. The seed and t determine the content of a batch. So the number of steps
done is all that a run must store to continue.
"""

import dataclasses
import functools
import importlib.util
import logging
import pathlib
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from rethinking.data import open_files
from rethinking.data.faults import BadRecord, naming
from rethinking.data.pipeline import Reading, read_batches
from rethinking.data.records import Records
from rethinking.data.source import DEFAULT, Dataset, Source, check_subset, find
from rethinking.data.splits import Evaluation, choose_records
from rethinking.errors import InputError

_LOG = logging.getLogger(__name__)
# The streams of random numbers that come from one seed.
_ORDER, _BOX = 0, 1
# Worker processes put their batches there.
_SHARED_MEMORY = pathlib.Path("/dev/shm")


class Batch(NamedTuple):
    """Examples as the host sends them to the devices.

    Attributes:
        images: the decoded images.
        labels: their labels.
        indices: positions in the split on disk; -1 for rows that fill up the last batch.
        epochs: the epoch of each example. Epoch and index determine the random draws for an
            example.
        weights: 1, or 0 for rows that do not count, which are padding and skipped records.
    """

    images: UInt8[np.ndarray, "b s s 3"]
    labels: Int32[np.ndarray, " b"]
    indices: Int64[np.ndarray, " b"]
    epochs: Int32[np.ndarray, " b"]
    weights: Float32[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True)
class Split:
    """The chosen examples of a split.

    `corrupt`, if given, maps labels [b] and indices [b] to the labels to use instead.
    """

    records: Records
    indices: Int64[np.ndarray, " n"]
    corrupt: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.indices)


def check(name: str, data_dir: str | None = None, evaluation: Evaluation = DEFAULT) -> None:
    """Raises InputError unless the set can be streamed.

    Raises:
        InputError: if the extra `imagenet` is not installed; if the set is unknown, not prepared,
            not image classification, without colour, or not in ArrayRecord files; if it has nothing
            to evaluate; or if one of its files is missing, damaged or cut short.
    """
    source = find_coloured(name, data_dir, evaluation)
    evaluation.held_out(source.info)
    source.check()
    evaluation.require_labels(source)


def load(
    name: str,
    data_dir: str | None = None,
    num_train: int = 0,
    seed: int = 0,
    num_test: int = 0,
    evaluation: Evaluation = DEFAULT,
) -> Dataset:
    """The training and the test set. Their records are read only when batches are made.

    Arguments and errors are those of `rethinking.data.arrays.load`, except that the images may
    differ in size. Also raises InputError if the set has more files than this process may open.
    """
    source = find_coloured(name, data_dir, evaluation)
    info = evaluation.held_out(source.info)
    check_subset(name, info, num_train, num_test)
    chosen = choose_records(info, evaluation, num_train, num_test, seed)
    # Both splits may come from the same files.
    records = {key: source.records(key, streamed=True) for key, _ in chosen}
    open_files.allow(sum(each.num_open_files for each in records.values()), name)
    train, test = (Split(records[key], indices) for key, indices in chosen)
    return Dataset(name, train, test, info.num_classes, info.eval_split)


def find_coloured(name: str, data_dir: str | None, evaluation: Evaluation) -> Source:
    """The set `name`. Raises InputError unless it holds coloured images that can be decoded."""
    source = find(name, data_dir, evaluation=evaluation, streamed=True)
    if not source.is_encoded:
        raise InputError(
            f"{name} cannot be streamed, because its examples are not images in files. Set "
            "config.data.stream=False."
        )
    _check_decoders(name)
    height, width, channels = source.info.example_shape
    if channels != 3:
        remedy = "Prepare the set with 3 channels."
        if min(height, width) > 0:
            remedy = "Set config.data.stream=False, which loads them into memory."
        raise InputError(
            f"{name} cannot be streamed, because its images do not have 3 channels. {remedy}"
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
    """Batches without end, from batch `first_step` on.

    Args:
        split: the examples.
        batch_size: number of rows, over all processes. This process gets `reading.rows` of them.
        image_size: height and width of the images, in pixels.
        seed: determines the orders of the epochs. With an example's epoch and index, it determines
            the example's box.
        box: whether to cut a random box from each image (`decode.random_view`). Otherwise it is the
            middle (`decode.central_view`).
        reading: which rows this process makes, and how.
        first_step: number of batches to leave out. Leaving them out takes no time.
    """
    examples = _Examples(split.records, split.indices, image_size, reading.skip_bad)
    example = functools.partial(examples.train_example, seed=seed, box=box)
    return Stream(read_batches(example, batch_size, first_step, None, reading), split.corrupt)


def eval_batches(split: Split, batch_size: int, image_size: int, reading: Reading) -> "Stream":
    """All examples once, in order. Each image is cut to its middle (`decode.central_view`).

    The arguments are those of `train_batches`. Rows of weight 0 fill the last batch. Every process
    gets the same number of batches.
    """
    examples = _Examples(split.records, split.indices, image_size, reading.skip_bad)
    num_batches = -(-len(split) // batch_size)
    batches = read_batches(examples.eval_example, batch_size, 0, num_batches, reading)
    return Stream(batches, split.corrupt)


class Stream(Iterator[Batch]):
    """Batches, made ahead in the background until `close` is called."""

    def __init__(self, batches: Generator[Batch, None, None], corrupt: Callable | None):
        self._batches, self._corrupt = batches, corrupt
        # This also ends grain's threads before the program ends. Otherwise they could crash at its
        # end.
        weakref.finalize(self, batches.close)

    def __next__(self) -> Batch:
        """The next batch.

        Raises InputError for a bad record, unless bad records are skipped, and for an error of the
        operating system.
        """
        with naming(_SHARED_MEMORY):
            batch = next(self._batches)
        if self._corrupt is None:
            return batch
        return batch._replace(labels=self._corrupt(batch.labels, batch.indices))

    def close(self) -> None:
        """Stops reading. The stream then has no more batches."""
        self._batches.close()


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Makes single rows. Threads and worker processes call it."""

    records: Records
    indices: Int64[np.ndarray, " n"]
    image_size: int
    skip_bad: bool

    def train_example(self, position: int, seed: int, box: bool) -> Batch:
        epoch, place = divmod(position, len(self.indices))
        index = int(self.indices[_order(len(self.indices), seed, epoch)[place]])
        rng = _generator(seed, _BOX, epoch, index) if box else None
        return self._read(index, epoch, rng)

    def eval_example(self, position: int) -> Batch:
        if position >= len(self.indices):
            return self._blank(-1)
        return self._read(int(self.indices[position]))

    def _read(self, index: int, epoch: int = 0, rng: np.random.Generator | None = None) -> Batch:
        try:
            image, label = self._view(index, rng)
        except BadRecord as error:
            if not self.skip_bad:
                raise
            _LOG.warning("Skipped: %s", error)
            return self._blank(index, epoch)
        return Batch(image, np.int32(label), np.int64(index), np.int32(epoch), np.float32(1))

    def _view(
        self, index: int, rng: np.random.Generator | None
    ) -> tuple[UInt8[np.ndarray, "s s 3"], int]:
        from rethinking.data import decode  # Needs the extra `imagenet`.

        encoded, label = self.records.read(index)
        try:
            if rng is None:
                return decode.central_view(encoded, self.image_size), label
            return decode.random_view(encoded, self.image_size, rng), label
        except decode.DecodeError as error:
            raise self.records.unusable(index, str(error)) from error

    def _blank(self, index: int, epoch: int = 0) -> Batch:
        image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        return Batch(image, np.int32(0), np.int64(index), np.int32(epoch), np.float32(0))


@functools.lru_cache(maxsize=4)
def _order(num: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order of the examples in an epoch, a permutation of 0 to num - 1."""
    return _generator(seed, _ORDER, epoch).permutation(num)


def _generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
