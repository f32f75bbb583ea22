"""Kernels: functions of two sets of examples that give their Gram matrix."""

import dataclasses
import math
import numbers
from typing import Any, Protocol, runtime_checkable

from rethinking.errors import InputError

# Between these, a bandwidth's square and one over it are ordinary numbers of float64.
SMALLEST_BANDWIDTH, LARGEST_BANDWIDTH = 1e-150, 1e150


@runtime_checkable
class Kernel(Protocol):
    """A positive definite function of two examples, computed for all pairs at once.

    Your own kernel must be hashable, as a frozen dataclass is. Its arguments are NumPy arrays on
    one CPU and JAX arrays elsewhere, so it must use the functions of `x.__array_namespace__()`.
    """

    def __call__(self, x: Any, z: Any) -> Any:
        """k(x_i, z_j) as [m, k] for x [m, d] and z [k, d], of the same kind and dtype."""


def squared_distances(x, z):
    """||x_i - z_j||^2 as [m, k], computed by one matrix product.

    Values below the product's rounding error become zero. So a point's distance from itself is
    zero, and no value is negative.
    """
    xp = x.__array_namespace__()
    # Far from the origin the large norms would cancel the distances between points.
    center = z.mean(0, keepdims=True)
    x, z = x - center, z - center
    norms = (x * x).sum(1)[:, None] + (z * z).sum(1)[None, :]
    squares = norms - 2 * (x @ z.T)
    rounding = 4 * math.sqrt(x.shape[1]) * float(xp.finfo(x.dtype).eps)
    return xp.where(squares > rounding * norms, squares, xp.zeros_like(squares))


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """exp(-||x - z||^2 / (2 bandwidth^2))."""

    bandwidth: float

    def __post_init__(self):
        _check_bandwidth(self.bandwidth)

    def __call__(self, x, z):
        return x.__array_namespace__().exp(squared_distances(x, z) * (-0.5 / self.bandwidth**2))


@dataclasses.dataclass(frozen=True)
class Laplacian:
    """exp(-||x - z|| / bandwidth) with the Euclidean norm (Belkin, Ma and Mandal, 2018)."""

    bandwidth: float

    def __post_init__(self):
        _check_bandwidth(self.bandwidth)

    def __call__(self, x, z):
        xp = x.__array_namespace__()
        return xp.exp(xp.sqrt(squared_distances(x, z)) * (-1 / self.bandwidth))


@dataclasses.dataclass(frozen=True)
class Linear:
    """<x, z>; its Gram matrix is the X X^T of section 5.

    That matrix is positive definite only if the examples are linearly independent, so for at most d
    examples.
    """

    def __call__(self, x, z):
        return x @ z.T


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """(<x, z> / d + offset)^degree, where d is the number of features."""

    degree: int
    offset: float = 1.0

    def __post_init__(self):
        whole = isinstance(self.degree, numbers.Integral) and not isinstance(self.degree, bool)
        offset = _number(self.offset)
        if not whole or self.degree < 1 or not 0 <= offset < math.inf:
            raise InputError(
                f"polynomial kernel of degree {self.degree} and offset {self.offset}: it is not "
                "positive definite. The degree must be at least 1 and the offset at least 0, both "
                "finite, and the degree a whole number."
            )

    def __call__(self, x, z):
        return (x @ z.T / x.shape[1] + self.offset) ** self.degree


def dimensions(kernel: Kernel, num_features: int, most: int) -> int:
    """The number of dimensions of a kernel's space of functions, but at most `most`.

    A system of more examples is singular. The space of `Polynomial` has the monomials of at most
    its degree, or of exactly its degree if the offset is 0.
    """
    if isinstance(kernel, Linear):
        return min(num_features, most)
    if not isinstance(kernel, Polynomial):
        return most
    variables = num_features + (kernel.offset > 0)
    total, chosen = variables - 1 + kernel.degree, min(variables - 1, kernel.degree)
    count = 1  # C(total - chosen, 0)
    for i in range(1, chosen + 1):
        count = count * (total - chosen + i) // i  # C(total - chosen + i, i)
        if count >= most:
            return most
    return count


def _check_bandwidth(bandwidth: float) -> None:
    if not 0 < _number(bandwidth) < math.inf:
        raise InputError(
            f"kernel bandwidth {bandwidth}: it must be a positive number. Choose a distance at "
            "which two examples still resemble each other; for MNIST's pixels in [0, 1] that is 5."
        )
    if not SMALLEST_BANDWIDTH <= bandwidth <= LARGEST_BANDWIDTH:
        raise InputError(
            f"kernel bandwidth {bandwidth}: its square is not a number of float64, so it must be "
            f"from {SMALLEST_BANDWIDTH:g} to {LARGEST_BANDWIDTH:g}. Scale the examples instead."
        )


def _number(value: Any) -> float:
    """`value` as a float, and NaN if it is not a real number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a long integer
        return math.inf
