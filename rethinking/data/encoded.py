"""Sets of encoded images: what TFDS sets, folders of images and Hugging Face sets share."""

import abc
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from rethinking.data import formats
from rethinking.data.description import Description, Info, Source
from rethinking.data.faults import BadRecord, naming
from rethinking.data.records import Record, Records

# Pillow's modes of grey images.
GREY = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclasses.dataclass(frozen=True)
class LabelledRecords(Records):
    """Encoded images whose labels are in memory; -1 stands for an image without a label.

    `streamed` says whether bad images can be skipped.
    """

    split: str
    labels: Int32[np.ndarray, " n"]
    streamed: bool

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of an image. Raises BadRecord if it is missing."""

    @abc.abstractmethod
    def place(self, index: int) -> str:
        """The file of an image, and its place in it if the file holds several."""

    def read(self, index: int) -> Record:
        """The bytes of an image, and its label. Raises BadRecord if one of them is missing."""
        label = int(self.labels[index])
        if label < 0:
            raise self.unusable(index, "it has no label")
        image = self.encoded(index)
        if not image:
            raise self.unusable(index, "it is empty")
        return image, label

    def unusable(self, index: int, cause: str) -> BadRecord:
        """The error to raise for a bad image. It names the file."""
        remedy = "Replace or remove it."
        if self.streamed:
            remedy = "Set config.data.skip_bad=True to skip it, or replace or remove it."
        return BadRecord(
            f"{self.place(index)} cannot be used: {cause}. In the split {self.split} its index is "
            f"{index}. {remedy}"
        )


class EncodedDescription(Description):
    """A set of encoded images in files, of which no split is chosen for evaluation yet."""

    folder: pathlib.Path
    num_classes: int
    example_shape: tuple[int, int, int]  # that of the first image; [-1, -1, 3] if it is streamed
    classes: tuple[str, ...]  # see `Info`

    @abc.abstractmethod
    def records(self, split: str, streamed: bool = False) -> LabelledRecords:
        """The images of a split. None is read yet."""

    @abc.abstractmethod
    def files(self, split: str) -> Iterable[str]:
        """The paths of the files that the examples of a split come from."""

    def size(self, split: str) -> int:
        """The number of images in a split."""
        return len(self.records(split))

    def source(self, test: str | None) -> "EncodedSource":
        """The set, with `test` as the split to evaluate."""
        info = Info(
            num_train=self.size("train") if "train" in self.splits else 0,
            num_test=self.size(test) if test else 0,
            example_shape=self.example_shape,
            num_classes=self.num_classes,
            eval_split=test or "",
            classes=self.classes,
        )
        names = {"train": "train" if "train" in self.splits else "", "test": test or ""}
        return EncodedSource(self.name, info, names, tuple(self.splits), self)


@dataclasses.dataclass(frozen=True)
class EncodedSource(Source):
    """A set of encoded images in files."""

    description: EncodedDescription

    is_encoded = True

    def check(self) -> None:
        """Does nothing: the files were found when the set was described. None is read yet."""

    def has_labels(self) -> bool:
        """Whether an image of "test" has a label."""
        return self.info.num_test > 0 and bool((self.records("test").labels >= 0).any())

    def read_all(self, key: str) -> tuple[Shaped[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]:
        """All images, decoded, and their labels. Raises InputError for a bad one."""
        shape = self.info.example_shape
        if not self.names[key]:
            return np.empty((0, *shape), np.uint8), np.empty(0, np.int32)
        return decode_all(self.records(key), shape, "the first image of the set is")

    def records(self, key: str, streamed: bool = False) -> LabelledRecords:
        """The images of "train" or "test". None is read yet."""
        return self.description.records(self.names[key], streamed)

    def cache_name(self) -> str:
        """It depends on the place, names, sizes and times of change of the files."""
        root = self.description.folder.resolve()
        fingerprint = hashlib.sha256(f"{root}\n{sorted(self.names.items())}\n".encode())
        with naming(root):
            for split in filter(None, self.names.values()):
                for file in self.description.files(split):
                    fingerprint.update(os.fsencode(f"{file} {_state(file)}\n"))
        return f"{root.name or 'images'}-{fingerprint.hexdigest()[:16]}"


def _state(file: str) -> str:
    """The size and the time of change of a file. Reading it names it if it is missing."""
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def first_shape(records: LabelledRecords) -> tuple[int, int, int]:
    """The shape of the first image, read from its header: with 1 channel if it is grey, else 3.

    Raises BadRecord if that is not an image.
    """
    encoded = records.encoded(0)
    try:
        with formats.opened(encoded) as image:
            return image.height, image.width, 1 if image.mode in GREY else 3
    except formats.DecodeError as error:
        raise records.unusable(0, str(error)) from error


def decode_all(
    records: Records, shape: tuple[int, ...], expected: str
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    """All images and their labels.

    Raises BadRecord for an image that cannot be decoded or is not of this `shape`. `expected` is
    the beginning of a clause that says where the shape comes from.
    """
    images = np.empty((len(records), *shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    for rows in _batches(len(records)):
        for row, (encoded, label) in zip(rows, records.read_many(rows), strict=True):
            images[row], labels[row] = _decode(records, row, encoded, shape, expected), label
    return images, labels


def _decode(
    records: Records, row: int, encoded: bytes, shape: tuple[int, ...], expected: str
) -> UInt8[np.ndarray, "h w c"]:
    try:
        if shape[2] == 1 and isinstance(records, LabelledRecords):
            with formats.opened(encoded) as opened:
                is_grey = opened.mode in GREY
            if not is_grey:
                raise records.unusable(row, f"it is in colour, but {expected} grey")
        image = formats.decode(encoded, shape[2])
    except formats.DecodeError as error:
        raise records.unusable(row, f"its image is damaged ({error})") from error
    if image.shape != shape:
        here, there = (" x ".join(map(str, sides)) for sides in (image.shape, shape))
        cause = f"its image is {here}, but {expected} {there}"
        if isinstance(records, LabelledRecords):
            cause += " (for images of different sizes, set config.data.stream=True)"
        raise records.unusable(row, cause)
    return image


def _batches(num: int) -> Iterator[range]:
    """Ranges of up to 1,000 indices, from 0 to `num`.

    TFDS's reader unpacks a whole piece of a file, even for a single record.
    """
    for first in range(0, num, 1000):
        yield range(first, min(first + 1000, num))
