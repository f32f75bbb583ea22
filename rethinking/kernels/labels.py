"""Labels as integers and as one-hot targets, and the check that an argument is an array."""

import reprlib
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from rethinking.errors import InputError

# More classes than this must have at least one example each, on average.
MOST_EMPTY_CLASSES = 1000
_NUMBER_CLASSES = "Number the classes from 0: classes, y = numpy.unique(y, return_inverse=True)"


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as an array with a row for each example. Raises InputError if it is not one."""
    if scipy.sparse.issparse(value):
        raise InputError(f"{name} is a sparse matrix: give an array, {name}.toarray()")
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise InputError(
            f"{name} is a masked array with masked values. Remove those examples, or fill in values"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}. Give rows of one length.") from None
    if not array.ndim:
        raise InputError(
            f"{name} is {reprlib.repr(value)}: give an array with a row for each example"
        )
    return array


def one_hot(
    labels: Int[np.ndarray, " n"], num_classes: int | None = None
) -> Float[np.ndarray, "n c"]:
    """1 at each example's label, else 0. By default the largest label is the last class.

    Raises InputError for labels that are negative, beyond the classes or not integers.
    """
    labels = as_labels(labels)
    if num_classes is None:
        num_classes = count_classes(labels)
    if labels.max() >= num_classes:
        raise InputError(
            f"label {labels.max()} of example {labels.argmax()}: with {num_classes} classes labels "
            f"must be 0 to {num_classes - 1}"
        )
    targets = np.zeros((len(labels), num_classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets


def as_labels(labels: Any) -> Int[np.ndarray, " n"]:
    """Labels, one integer from 0 for each example; [n, 1] becomes [n].

    Raises InputError for anything else.
    """
    labels = as_array("labels", labels)
    if labels.dtype.kind not in "biu":
        raise InputError(
            f"the labels have the type {labels.dtype}, but labels are integers from 0. Whole "
            f"numbers: give labels.astype(int). {_NUMBER_CLASSES}."
        )
    if not len(labels) or labels.size != len(labels):
        raise InputError(
            f"labels of shape {labels.shape}: give one integer for each of at least one example"
        )
    labels = labels.reshape(-1)
    if labels.min() < 0:
        raise InputError(
            f"label {labels.min()} of example {labels.argmin()}: labels are integers from 0. "
            f"{_NUMBER_CLASSES}."
        )
    if labels.max() > np.iinfo(np.int64).max:
        raise InputError(f"label {labels.max()}: it is too large. {_NUMBER_CLASSES}.")
    return labels.astype(np.int64)


def count_classes(labels: Int[np.ndarray, " n"]) -> int:
    """The largest label plus one. Raises InputError if that is far more than there are labels."""
    num_classes = int(labels.max()) + 1
    if num_classes > max(len(labels), MOST_EMPTY_CLASSES):
        raise InputError(
            f"label {labels.max()} of example {labels.argmax()}: labels of 0 to {labels.max()} are "
            f"{num_classes:,} classes, too many for {len(labels):,} examples. {_NUMBER_CLASSES}."
        )
    return num_classes


def labels_or_none(y: np.ndarray) -> Int[np.ndarray, " n"] | None:
    """`y` as labels, or None if it holds targets. Raises InputError if it could be either."""
    if y.dtype.kind == "f":
        if y.ndim == 1 and (y == np.rint(y)).all():
            raise InputError(
                "y has whole numbers of a floating-point type: are they labels, or a target? For "
                "labels give y.astype(int), for a target y.reshape(-1, 1)."
            )
        return None
    if y.dtype.kind not in "biu":
        raise InputError(
            f"y has the type {y.dtype}. Labels are integers from 0, and targets are floating-point "
            f"numbers. {_NUMBER_CLASSES}."
        )
    if y.size != len(y):
        raise InputError(
            f"y has integers of shape {y.shape}. Labels are one integer for each example. Targets "
            "[n, c] are floating-point, also one-hot ones: give y.astype(float)."
        )
    return as_labels(y)
