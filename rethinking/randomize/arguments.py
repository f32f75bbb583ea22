"""What a caller may give to the randomization, checked: examples, labels, indices and classes."""

import numbers
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped
from numpy.typing import ArrayLike

from rethinking.errors import require


def as_examples(values: ArrayLike) -> Shaped[np.ndarray, " n *example"]:
    """The examples as an array. Raises InputError for a shape that `rethinking.randomize` lacks."""
    examples = np.asarray(values)
    require(
        examples.ndim in (2, 3, 4) and examples.dtype != object,
        f"Examples of dtype {examples.dtype} and shape {examples.shape} cannot be randomized. "
        "They must be images [n, height, width, channels] or [n, height, width], vectors [n, d], "
        "or tokens [n, length].",
    )
    if examples.ndim == 4:
        _, first, _, last = examples.shape
        require(
            first not in (1, 3) or last <= 4,
            f"Images of shape {examples.shape} seem to have their channels in front, as in "
            "PyTorch. Move them to the end by x.transpose(0, 2, 3, 1), and back afterwards by "
            "x.transpose(0, 3, 1, 2).",
        )
    return examples


def is_tokens(examples: Shaped[np.ndarray, " n *example"]) -> bool:
    """Whether these are sequences of tokens: an array [n, length] of integers other than bytes."""
    is_integer = np.issubdtype(examples.dtype, np.integer) and examples.dtype != np.uint8
    return examples.ndim == 2 and is_integer


def as_labels(values: ArrayLike) -> Integer[np.ndarray, " n"]:
    """The labels as an array. Raises InputError unless they are whole numbers."""
    return _whole_numbers(values, "labels")


def as_indices(values: ArrayLike | None, n: int) -> Integer[np.ndarray, " n"]:
    """The indices of n examples, which are 0 to n - 1 for None.

    Raises InputError unless there is a whole number from 0 on for each example.
    """
    if values is None:
        return np.arange(n)
    indices = _whole_numbers(values, "indices")
    require(
        len(indices) == n,
        f"There are {len(indices)} indices for {n} examples. Give one index for each example.",
    )
    require(
        n == 0 or int(indices.min()) >= 0,
        f"The index {indices.min(initial=0)} is negative. Indices are positions in a split, which "
        "start at 0.",
    )
    return indices


def as_num_classes(value: Any, labels: Integer[np.ndarray, " n"]) -> int:
    """The number of classes, which is the largest label plus 1 for None.

    Raises InputError if a label is not one of the classes. If the value is None, it also does so
    for a class without a label.
    """
    lowest, largest = 0, -1
    if len(labels):
        lowest, largest = int(labels.min()), int(labels.max())
    if value is None:
        value = largest + 1
        # Of the first n + 1 numbers, one is not a label if there are gaps.
        missing = np.setdiff1d(np.arange(min(value, len(labels) + 1)), labels)
        require(
            lowest < 0 or len(missing) == 0,
            f"The labels go up to {largest}, but none of them is {missing[:1].sum()}. Give "
            "num_classes, or number the classes from 0 on without gaps.",
        )
    require(
        is_whole(value) and (value > 0 or len(labels) == 0),
        f"num_classes={value!r} is not a number of classes. Give a whole number above 0.",
    )
    require(
        lowest >= 0 and largest < value,
        f"The labels go from {lowest} to {largest}, but must be from 0 to num_classes - 1, which "
        f"is {value - 1}. Renumber them, or give the right num_classes.",
    )
    require(
        value - 1 <= min(np.iinfo(labels.dtype).max, np.iinfo(np.int32).max),
        f"Labels of dtype {labels.dtype} cannot hold {value} classes. Convert them to int64.",
    )
    return int(value)


def is_whole(value: Any) -> bool:
    """Whether this is a whole number of Python or NumPy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _whole_numbers(values: ArrayLike, what: str) -> np.ndarray:
    """`values` as an array [n]. Raises InputError unless they are whole numbers."""
    array = np.asarray(values)
    if array.shape == (0,):
        array = array.astype(np.int64)  # An empty list has no dtype of its own.
    require(
        np.issubdtype(array.dtype, np.integer),
        f"The {what} are of dtype {array.dtype}, but must be whole numbers. Convert them to "
        "integers. To number classes of any kind from 0 on, use "
        "np.unique(values, return_inverse=True)[1].",
    )
    require(
        array.ndim == 1,
        f"The {what} have the shape {array.shape}, but must be a list of n numbers. Use "
        f"{what}.reshape(-1), or {what}.argmax(axis=1) if each is a one-hot vector.",
    )
    return array
