"""Checks of examples, labels and numbers, made at the call, before any time is spent."""

import dataclasses
import math
import reprlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rethinking.errors import InputError
from rethinking.kernels.labels import (
    as_array,
    as_labels,
    count_classes,
    labels_or_none,
    one_hot,
)
from rethinking.repeats import first_occurrences

# Larger numbers, or targets below one over it, can leave the type's range when they are multiplied.
LARGEST = {"float64": 1e100, "float32": 1e15}


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Examples and targets in float64. `labels` is None if the targets were given as numbers."""

    x: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, "n c"]
    labels: Int[np.ndarray, " n"] | None


def training_set(
    x: np.ndarray, y: np.ndarray, num_classes: int | None = None, repeats: bool = False
) -> TrainingSet:
    """The training set of the examples x [n, ...] with labels [n] or targets [n, c].

    Args:
        x: numbers, which must be finite.
        y: labels, integers from 0; or targets, floating-point numbers.
        num_classes: of the labels; by default the largest label plus one.
        repeats: allows examples that repeat others. Without a ridge they make the matrix singular.

    Raises InputError for data that are empty, infinite, ambiguous or mismatched.
    """
    size(x, y)
    x = flatten(x, copy=True)
    given = as_array("y", y)
    labels = labels_or_none(given)
    if labels is None:
        targets = given.reshape(len(given), -1).astype(np.float64)
        require_finite("targets", targets)
    else:
        targets = one_hot(labels, num_classes)
    if not repeats:
        refuse_repeated(x, targets)
    return TrainingSet(x, targets, labels)


def size(x: np.ndarray, y: np.ndarray) -> tuple[int, int, int]:
    """The numbers of examples, features and outputs of a training set. Copies no data.

    Raises InputError for data that are empty, ambiguous, mismatched or of another type.
    """
    x, y = as_examples(x), as_array("y", y)
    if len(x) != len(y):
        raise InputError(
            f"{len(x)} examples but {len(y)} labels or targets: there must be one for each example"
        )
    if not len(x):
        raise InputError("a system of n = 0 examples: at least 1 is needed")
    if not x.size or not y.size:
        raise InputError(
            f"x of shape {x.shape} and y of shape {y.shape}: at least one number is needed for "
            "each example"
        )
    labels = labels_or_none(y)
    num_outputs = y.size // len(y) if labels is None else count_classes(labels)
    return len(x), x.size // len(x), num_outputs


def as_examples(x: Any) -> np.ndarray:
    """`x` as an array [n, ...] of real numbers. Raises InputError if it is not one."""
    x = as_array("x", x)
    if x.dtype.kind not in "biuf":
        raise InputError(
            f"x has the type {x.dtype}: examples are arrays of real numbers. Convert x, for "
            "instance by x.astype(float)."
        )
    return x


def flatten(
    x: Any, num_features: int | None = None, copy: bool = False
) -> Float[np.ndarray, "n d"]:
    """The examples x [n, ...] as rows of float64, which are x's own memory unless `copy`.

    Raises InputError if they are not finite numbers, are too large, or have another number of
    features.
    """
    x = as_examples(x)
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    if num_features not in (None, x.shape[1]):
        raise InputError(
            f"{len(x)} examples of {x.shape[1]} features, but the model was fitted to "
            f"{num_features} features. Give examples [m, ...] of the same shape; for a single "
            "example x that is x[None]."
        )
    with np.errstate(over="ignore"):  # of longer types, to infinite values
        x = x.astype(np.float64, copy=copy)
    require_finite("features", x)
    check_features(x, "float64")
    return x


def check_features(x: Float[np.ndarray, "n d"], dtype: str) -> None:
    """Raises InputError if squares of the features are too large for a type."""
    if x.size and np.abs(x).max() > LARGEST[dtype]:
        example = np.abs(x).max(1).argmax()
        raise InputError(
            f"the features of example {example} are as large as {np.abs(x[example]).max():g}: "
            f"squares of numbers above {LARGEST[dtype]:g} can overflow in {dtype}. Scale the "
            "examples, or remove that one."
        )


def check_ridge(ridge: Any, dtype: str = "float64") -> float:
    """`ridge` as a float. Raises InputError unless it is zero or positive, and not too large."""
    number = np.asarray(ridge)
    if number.ndim or number.dtype.kind not in "iuf" or not 0 <= float(number) < math.inf:
        raise InputError(
            f"ridge={reprlib.repr(ridge)}: it must be 0, for interpolation, or a positive number"
        )
    if float(number) > LARGEST[dtype]:
        raise InputError(
            f"ridge={float(number):g}: a ridge above {LARGEST[dtype]:g} overflows in {dtype}. "
            "Choose a smaller one."
        )
    return float(number)


def check_targets(targets: Any, labels: Any, n: int, dtype: str = "float64") -> None:
    """Raises InputError unless there are targets [n, c] of ordinary numbers, and n labels or None.

    `dtype` is that of the factor, which solves for the targets.
    """
    shape = np.shape(targets)
    if len(shape) != 2 or shape[0] != n or not shape[1]:
        raise InputError(f"targets of shape {shape}: for {n} examples give [{n}, outputs]")
    if np.asarray(targets).dtype.kind not in "iuf":
        raise InputError("targets must be real numbers: labels become targets by labels.one_hot")
    require_finite("targets", targets)
    largest = np.abs(targets).max(0)
    outside = (largest > LARGEST[dtype]) | ((largest < 1 / LARGEST[dtype]) & (largest > 0))
    if outside.any():
        column = outside.argmax()
        raise InputError(
            f"the largest target of output {column} is {largest[column]:g}. It must be from "
            f"{1 / LARGEST[dtype]:g} to {LARGEST[dtype]:g} in {dtype}. Scale the targets."
        )
    if labels is not None and len(as_labels(labels)) != n:
        raise InputError(f"{len(labels)} labels for {n} examples: give one for each example")


def require_finite(name: str, values: np.ndarray) -> None:
    """Raises InputError, with the first bad example, unless all values are finite."""
    if np.asarray(values).dtype.kind != "f":
        return
    finite = np.isfinite(values).all(tuple(range(1, np.ndim(values))))
    if not finite.all():
        raise InputError(
            f"the {name} of example {finite.argmin()} are not finite ({(~finite).sum()} such "
            "examples). Remove or repair them."
        )


def refuse_repeated(x: np.ndarray, targets: Float[np.ndarray, "n c"]) -> None:
    """Raises InputError if examples repeat others, which makes a matrix without ridge singular."""
    first = first_occurrences(x)
    pairs = [(int(first[i]), int(i)) for i in np.flatnonzero(first != np.arange(len(x)))]
    if not pairs:
        return
    conflicting = [(i, j) for i, j in pairs if (targets[i] != targets[j]).any()]
    shown = ", ".join(f"{i} and {j}" for i, j in (conflicting or pairs)[:5])
    if conflicting:
        raise InputError(
            f"{len(conflicting)} examples repeat another with a different label ({shown}): no "
            "function interpolates them. Remove them, or set a ridge above 0."
        )
    raise InputError(
        f"{len(pairs)} examples repeat another ({shown}), which makes the matrix singular. Remove "
        "the repetitions, which does not change the interpolant, or set a ridge above 0."
    )
