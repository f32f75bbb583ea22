"""Kernels, and Gram matrices made of them panel by panel, straight into the storage of their factor."""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

from rethinking.errors import InputError


@runtime_checkable
class Kernel(Protocol):
    """A positive definite function. Own kernels need only this, be hashable, and use the arrays' own namespace."""

    def __call__(self, x: Any, z: Any) -> Any:
        """k(x_i, z_j) for x [m, d] and z [k, d], arrays of NumPy or JAX; [m, k] of the same kind and dtype."""


def squared_distances(x, z):
    """||x_i - z_j||^2, [m, k], by one product of matrices; zero where it is less than that product's rounding.

    So a point is at distance zero from itself, and no square is below zero.
    """
    xp = x.__array_namespace__()
    center = z.mean(
        0, keepdims=True
    )  # Far from the origin norms would hide the distances between points.
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
    """exp(-||x - z|| / bandwidth), with the Euclidean norm as in Belkin, Ma and Mandal (2018)."""

    bandwidth: float

    def __post_init__(self):
        _check_bandwidth(self.bandwidth)

    def __call__(self, x, z):
        xp = x.__array_namespace__()
        return xp.exp(xp.sqrt(squared_distances(x, z)) * (-1 / self.bandwidth))


@dataclasses.dataclass(frozen=True)
class Linear:
    """<x, z>, the X X^T of section 5; positive definite only for independent examples, so for no more than d."""

    def __call__(self, x, z):
        return x @ z.T


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """(<x, z> / d + offset)^degree, where d is the number of features."""

    degree: int
    offset: float = 1.0

    def __post_init__(self):
        if self.degree < 1 or self.offset < 0:
            raise InputError(
                f"polynomial kernel of degree {self.degree} and offset {self.offset}: needed are a "
                "degree of at least 1 and an offset of at least 0, else it is not positive definite"
            )

    def __call__(self, x, z):
        return (x @ z.T / x.shape[1] + self.offset) ** self.degree


def _check_bandwidth(bandwidth: float) -> None:
    if not 0 < bandwidth < math.inf:
        raise InputError(
            f"kernel bandwidth {bandwidth}: must be a positive number, a distance between examples at "
            "which they still resemble each other (on MNIST, pixels in [0, 1], 5)"
        )
