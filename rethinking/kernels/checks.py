"""Checks of the training set and the kernel, made before any time is spent."""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Float, Int

from rethinking.errors import InputError
from rethinking.kernels.backend import Backend
from rethinking.kernels.gram import Kernel
from rethinking.repeats import first_occurrences


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
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise InputError(
            f"{len(x)} examples but {len(y)} labels or targets: there must be one for each example"
        )
    if not len(x):
        raise InputError("a system of n = 0 examples: at least 1 is needed")
    x = x.reshape(len(x), -1).astype(np.float64)
    labels = _labels(y)
    if labels is None:
        targets = y.reshape(len(y), -1).astype(np.float64)
    else:
        targets = one_hot(labels, num_classes)
    _require_finite("features", x)
    _require_finite("targets", targets)
    if not repeats:
        _refuse_repeated(x, targets)
    return TrainingSet(x, targets, labels)


def check_ridge(ridge: float) -> None:
    """Raises InputError unless `ridge` is zero or a positive number."""
    if not 0 <= ridge < math.inf:
        raise InputError(f"ridge={ridge}: it must be 0, for interpolation, or a positive number")


def check_kernel(kernel: Kernel, x: np.ndarray, backend: Backend) -> None:
    """Raises InputError unless the backend can call `kernel` as `Kernel` says."""
    try:
        hash(kernel)
    except TypeError:
        raise InputError(
            f"the kernel {kernel!r} is not hashable, so its compiled programs cannot be found "
            "again. Make it a function or a frozen dataclass."
        ) from None
    few, more = x[:2], x[:3]
    try:
        shape = backend.kernel_shape(kernel, few, more)
    except jax.errors.TracerArrayConversionError:
        raise InputError(
            f"the kernel {kernel!r} calls NumPy, but here JAX computes it. Use the functions of "
            "x.__array_namespace__(), as rethinking.kernels.gram does."
        ) from None
    if shape != (len(few), len(more)):
        raise InputError(
            f"the kernel {kernel!r} gives an array of shape {shape} for {len(few)} and {len(more)} "
            f"examples. It must be ({len(few)}, {len(more)}): k(x_i, z_j) for all pairs."
        )


def one_hot(
    labels: Int[np.ndarray, " n"], num_classes: int | None = None
) -> Float[np.ndarray, "n c"]:
    """1 at each example's label, else 0. By default the largest label is the last class.

    Raises InputError for labels that are negative or beyond the classes.
    """
    if labels.min() < 0:
        raise InputError(
            f"label {labels.min()} of example {labels.argmin()}: labels are integers from 0"
        )
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    if labels.max() >= num_classes:
        raise InputError(
            f"label {labels.max()} of example {labels.argmax()}: with {num_classes} classes labels "
            f"must be 0 to {num_classes - 1}"
        )
    targets = np.zeros((len(labels), num_classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _labels(y: np.ndarray) -> Int[np.ndarray, " n"] | None:
    """`y` as labels, or None if it holds targets. Raises InputError if it could be either."""
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        if y.ndim == 1 and (y == np.rint(y)).all():
            raise InputError(
                "y has whole numbers of a floating-point type: are they labels, or a target? For "
                "labels give y.astype(int), for a target y.reshape(-1, 1)."
            )
        return None
    if y.size != len(y):
        raise InputError(
            f"y has integers of shape {y.shape}. Labels are one integer for each example. Targets "
            "[n, c] are floating-point, also one-hot ones: give y.astype(float)."
        )
    return y.reshape(-1).astype(np.int64)


def _require_finite(name: str, values: Float[np.ndarray, "n d"]) -> None:
    finite = np.isfinite(values).all(1)
    if not finite.all():
        raise InputError(
            f"the {name} of example {finite.argmin()} are not finite ({(~finite).sum()} such "
            "examples). Remove or repair them."
        )


def _refuse_repeated(x: Float[np.ndarray, "n d"], targets: Float[np.ndarray, "n c"]) -> None:
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
