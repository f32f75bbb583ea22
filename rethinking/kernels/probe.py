"""Checks of a kernel at the call: a few of its values show what would fail late, or silently."""

import itertools

import jax
import numpy as np
from jaxtyping import Float

from rethinking.errors import InputError
from rethinking.kernels import checks
from rethinking.kernels.backend import Backend
from rethinking.kernels.gram import Gaussian, Kernel, Laplacian

# The examples whose kernel with all others is computed, and how many others at once.
NUM_EXAMPLES = 16
BATCH = 4096
# How far two values of the kernel for the same pair may be apart, relative to the largest value.
TOLERANCE = 1e-6
# So many pairs are also computed alone.
NUM_ALONE = 4


def check_kernel(kernel: Kernel, x: Float[np.ndarray, "n d"], backend: Backend) -> None:
    """Raises InputError unless the backend can call `kernel` and its matrix says something of x.

    A kernel whose matrix is the identity, or the same number everywhere, knows nothing of the
    examples. With a ridge, the system would have a solution all the same.
    """
    check_form(kernel, x, backend)
    precise = backend.in_float64()
    chosen = np.linspace(0, len(x) - 1, min(len(x), NUM_EXAMPLES)).astype(int)
    few = x[chosen]
    with np.errstate(all="ignore"):
        parts = []
        for first in range(0, len(x), BATCH):
            parts.append(precise.kernel_values(kernel, few, x[first : first + BATCH]))
        alone = [
            float(precise.kernel_values(kernel, x_i[None], z_j[None])[0, 0])
            for x_i, z_j in itertools.pairwise(few[: NUM_ALONE + 1])
        ]
    rows = np.concatenate(parts, 1)
    require_finite(rows)
    _require_a_function_of_pairs(kernel, rows[:, chosen], alone)
    _refuse_constant(kernel, few, rows[:, chosen])
    # For other kernels orthogonal examples are ordinary ones.
    if isinstance(kernel, Gaussian | Laplacian):
        _refuse_identity(kernel, rows, chosen)


def check_form(kernel: Kernel, x: Float[np.ndarray, "n d"], backend: Backend) -> None:
    """Raises InputError unless the backend can call `kernel` as `Kernel` says."""
    if isinstance(kernel, type) or not callable(kernel):
        raise InputError(
            f"the kernel is {kernel!r}: it must be a function of two sets of examples. Give one of "
            "rethinking.kernels.gram, for instance gram.Gaussian(bandwidth=5.0)."
        )
    try:
        hash(kernel)
    except TypeError:
        raise InputError(
            f"the kernel {kernel!r} is not hashable, so its compiled programs cannot be found "
            "again. Make it a function or a frozen dataclass."
        ) from None
    checks.check_features(x, str(backend.dtype))
    few, more = (x[:num].astype(backend.dtype) for num in (2, 3))
    try:
        with np.errstate(all="ignore"):
            values = backend.kernel_form(kernel, few, more)
    except jax.errors.TracerArrayConversionError:
        raise InputError(
            f"the kernel {kernel!r} calls NumPy, but here JAX computes it. Use the functions of "
            "x.__array_namespace__(), as rethinking.kernels.gram does."
        ) from None
    shape = getattr(values, "shape", None)
    if shape != (len(few), len(more)):
        raise InputError(
            f"the kernel {kernel!r} gives an array of shape {shape} for {len(few)} and "
            f"{len(more)} examples. It must be ({len(few)}, {len(more)}): k(x_i, z_j) for all "
            "pairs."
        )
    if values.dtype != backend.dtype:
        raise InputError(
            f"the kernel {kernel!r} gives numbers of type {values.dtype} for examples of type "
            f"{backend.dtype}. It must give the type of its examples."
        )


def require_finite(values: np.ndarray) -> None:
    """Raises InputError unless all values of a kernel are finite."""
    if not np.isfinite(values).all():
        raise InputError(
            "the matrix has entries that are not finite. The kernel must give finite values "
            "for all pairs of examples. A cosine, for instance, is undefined for zero vectors, and "
            "powers of large numbers overflow."
        )


def _require_a_function_of_pairs(kernel: Kernel, square: np.ndarray, alone: list[float]) -> None:
    """`square` has the kernel of the chosen examples, computed with all others.

    `alone` has some of the same values, each computed without others.
    """
    most = TOLERANCE * np.abs(square).max()
    if np.abs(square - square.T).max() > most:
        raise InputError(
            f"the kernel {kernel!r} is not symmetric: k(x, z) must be k(z, x). Without that, no "
            "function in a kernel's space solves the system."
        )
    for i, value in enumerate(alone):
        if abs(square[i, i + 1] - value) > most:
            raise InputError(
                f"the kernel {kernel!r} gives {value:.9g} for a pair of examples alone, and "
                f"{square[i, i + 1]:.9g} for the same pair among others. It must be a function of "
                "the pair. If it is, some example is so far from the others that rounding errors "
                "spoil their distances: remove such outliers."
            )


def _refuse_constant(kernel: Kernel, few: np.ndarray, square: np.ndarray) -> None:
    if (square == square[0, 0]).all() and (few != few[0]).any():
        raise InputError(
            f"the kernel {kernel!r} is {square[0, 0]:g} for each of {square.size} pairs of "
            "examples. So all examples look alike. Choose a narrower kernel: for instance a "
            "smaller bandwidth, or a smaller offset."
        )


def _refuse_identity(kernel: Kernel, rows: np.ndarray, chosen: np.ndarray) -> None:
    others = rows.copy()
    others[np.arange(len(chosen)), chosen] = 0
    if others.shape[1] > 1 and not others.any():
        raise InputError(
            f"the kernel {kernel!r} is 0 for {len(chosen)} examples and all others. So no example "
            "can be predicted from others. Choose a wider kernel: for instance a larger bandwidth."
        )
