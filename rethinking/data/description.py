"""What a data set is, before its examples are read: the interface of all sources of data.

A `Description` has splits, of which `splits.Evaluation` chooses the one to evaluate. This gives a
`Source`, with "train" to train on and "test" to evaluate.
"""

import abc
import dataclasses
from collections.abc import Collection
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, Shaped

from rethinking.data.records import Records

# `Info.eval_split` if a part of the training split is evaluated.
HELD_OUT = "held out of train"


@dataclasses.dataclass(frozen=True)
class Info:
    """The sizes of a data set, known before anything is decoded.

    An example is an image [height, width, channels], a vector of numbers [d], or a sequence of
    tokens [length]. In `example_shape`, -1 stands for sides that differ from image to image.
    `eval_split` is the name of the split that is evaluated, or `HELD_OUT`. `example_dtype` is that
    of the arrays in memory: uint8 or float32 for images, float32 for vectors, int32 for tokens.
    `classes` has the names of the classes in the order of their numbers; none if they are unknown.
    """

    num_train: int
    num_test: int
    example_shape: tuple[int, ...]
    num_classes: int
    eval_split: str = dataclasses.field(default="test", compare=False)
    example_dtype: str = "uint8"
    classes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def kind(self) -> str:
        """What the examples are: "image", "vector" or "tokens"."""
        if len(self.example_shape) == 3:
            return "image"
        return "tokens" if self.example_dtype == "int32" else "vector"

    @property
    def train_size(self) -> int:
        """The number of records in the training split on disk, with those held out of it."""
        held_out = self.num_test if self.eval_split == HELD_OUT else 0
        return self.num_train + held_out


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """A data set of which "train" is trained on and "test" is evaluated. Either may be empty.

    `names` says what the two are called in the set, where all splits are `splits`.
    """

    name: str
    info: Info
    names: dict[str, str]
    splits: tuple[str, ...]

    # Whether the examples are encoded images that can be read one by one: see `records`.
    is_encoded: ClassVar[bool] = False

    @abc.abstractmethod
    def check(self) -> None:
        """Raises InputError with a file's name if a file is missing or cut short."""

    @abc.abstractmethod
    def has_labels(self) -> bool:
        """Whether the examples of "test" have labels. It reads a few of them at most."""

    @abc.abstractmethod
    def read_all(self, key: str) -> tuple[Shaped[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]:
        """All examples of "train" or "test", and their labels. Raises InputError for a bad one."""

    def records(self, key: str, streamed: bool = False) -> Records:
        """The encoded images of "train" or "test". `streamed`: bad ones can be skipped.

        Only sources that are `is_encoded` have them.
        """
        raise NotImplementedError

    def cache_name(self) -> str | None:
        """The name of the cache that keeps what `read_all` gives. None: reading again is as fast.

        It changes when the files of "train" or "test" change.
        """
        return None


class Description(abc.ABC):
    """A data set with the names of its splits, of which none is chosen for evaluation yet."""

    name: str
    splits: Collection[str]

    @abc.abstractmethod
    def size(self, split: str) -> int:
        """The number of examples in a split. Raises InputError if its files are damaged."""

    @abc.abstractmethod
    def source(self, test: str | None) -> Source:
        """The set, with `test` as the split to evaluate; None means that there is none."""
