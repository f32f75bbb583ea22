"""Sets whose arrays are in memory as soon as they are described."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32, Shaped

from rethinking.data.description import Description, Info, Source

Arrays = tuple[np.ndarray, np.ndarray]  # examples and labels


@dataclasses.dataclass(frozen=True)
class ArraySource(Source):
    """A set of arrays: the examples and labels of "train" and "test"."""

    arrays: dict[str, Arrays]

    def check(self) -> None:
        """Does nothing: the arrays were checked when they were described."""

    def has_labels(self) -> bool:
        """Whether an example of "test" has a label."""
        return bool((self.arrays["test"][1] >= 0).any())

    def read_all(self, key: str) -> tuple[Shaped[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]:
        """The examples of "train" or "test", and their labels."""
        return self.arrays[key]


@dataclasses.dataclass(frozen=True)
class ArrayDescription(Description):
    """A set of arrays: the examples and labels of each split, in the form of `raw.prepared`."""

    name: str
    splits: Mapping[str, Arrays]
    num_classes: int
    classes: tuple[str, ...] = ()  # see `Info`

    def size(self, split: str) -> int:
        """The number of examples in a split."""
        return len(self.splits[split][1])

    def source(self, test: str | None) -> ArraySource:
        """The set, with `test` as the split to evaluate."""
        examples, labels = next(iter(self.splits.values()))
        none = examples[:0], labels[:0]
        arrays = {
            "train": self.splits.get("train", none),
            "test": self.splits[test] if test else none,
        }
        info = Info(
            num_train=len(arrays["train"][1]),
            num_test=len(arrays["test"][1]),
            example_shape=examples.shape[1:],
            num_classes=self.num_classes,
            eval_split=test or "",
            example_dtype=examples.dtype.name,
            classes=self.classes,
        )
        names = {"train": "train", "test": test or ""}
        return ArraySource(self.name, info, names, tuple(self.splits), arrays)
