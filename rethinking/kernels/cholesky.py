"""The Cholesky factorization of a symmetric positive definite matrix, half of it stored, over any number of devices.

Left-looking: panel g of the matrix is made where the factor's will lie when its turn comes, has all earlier panels'
products subtracted, and is overwritten by panel g of the factor. So nothing is stored beside the factor.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, onenormest

from rethinking.errors import InputError
from rethinking.kernels import layout as layouts
from rethinking.kernels.blas import BlasBackend
from rethinking.kernels.sharded import ShardedBackend

_LOG = logging.getLogger(__name__)
Backend = BlasBackend | ShardedBackend


class NotPositiveDefiniteError(InputError):
    """The matrix has no Cholesky factor; `pivot` is the first row, counted from 0, at which that shows."""

    def __init__(self, pivot: int, dtype: str):
        remedies = "add a ridge" + ("" if dtype == "float64" else ", compute in float64")
        super().__init__(
            f"the matrix is not positive definite in {dtype}: pivot {pivot} is not above zero. Remedies: "
            f"remove examples that repeat others, {remedies}, or choose a narrower kernel."
        )
        self.pivot = pivot


def make_backend(n: int, dtype: str, mesh: Mesh | None = None, num_panels: int = 0) -> Backend:
    """Where and how an n x n matrix is worked on: JAX on the devices of `mesh`, a mesh of one axis, or all there are.

    If that is a single CPU device, or a TPU, which has no float64, is to compute in it: SciPy's BLAS on this host.
    Raises InputError for n below 1 and for dtypes other than float32 and float64.
    """
    if n < 1:
        raise InputError(f"a system of n = {n} examples: at least 1 is needed")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}: a factor is computed in float32 or float64")
    mesh = mesh or jax.make_mesh((jax.device_count(),), ("rows",))
    platform = mesh.devices.flat[0].platform
    if without := platform == "tpu" and dtype == "float64":
        _LOG.info(
            "A TPU has no float64: this host's processors solve. dtype=float32 uses the TPU, and refines."
        )
    if without or (mesh.size == 1 and platform == "cpu"):
        # Nothing above the diagonal is computed here, and BLAS wants wide panels: on two cores at n = 16,000 eight of
        # them ran at 130 GFLOP/s, 16 at 118, 32 at 98.
        return BlasBackend(
            layouts.make(n, num_panels=num_panels or min(32, math.ceil(n / 2048))), dtype
        )
    return ShardedBackend(layouts.make(n, mesh.size, num_panels), dtype, mesh)


def in_float64(backend: Backend) -> Backend:
    """The backend itself if it computes in float64, else one beside it that does: on a TPU, which has none, the CPU."""
    if backend.dtype == np.float64:
        return backend
    if isinstance(backend, BlasBackend) or backend.platform == "tpu":
        return BlasBackend(layouts.make(backend.layout.n), "float64")
    return ShardedBackend(backend.layout, "float64", backend.mesh)


class Cholesky:
    """L with L L^T = A, in the storage of its backend. See `factor`."""

    def __init__(self, backend: Backend, storage: Any):
        self.backend, self.storage = backend, storage

    def solve(self, b: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """x with A x = b."""
        return self.backend.solve(self.storage, b)

    def multiply(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """A v, computed as L (L^T v)."""
        return self.backend.multiply(self.storage, v)

    @functools.cached_property
    def norm(self) -> float:
        """An estimate of A's 1-norm, from below and seldom far off (Higham and Tisseur, 2000)."""
        return _one_norm(self.multiply, self.backend.layout.n)

    @functools.cached_property
    def condition(self) -> float:
        """An estimate of A's condition number in the 1-norm, likewise."""
        return self.norm * _one_norm(self.solve, self.backend.layout.n)


def _one_norm(product: Callable[[np.ndarray], np.ndarray], n: int) -> float:
    """The 1-norm of the symmetric n x n matrix whose product with [n, c] is given."""
    if n < 5:  # too small for the estimate
        return float(np.abs(product(np.eye(n))).sum(0).max())

    def vector(v: np.ndarray) -> np.ndarray:
        return product(v.reshape(n, 1))[:, 0]

    operator = LinearOperator(
        (n, n), dtype=np.float64, matvec=vector, rmatvec=vector, matmat=product, rmatmat=product
    )
    before = np.random.get_state()  # SciPy draws from it, and all processes must draw the same
    try:
        np.random.seed(0)
        return float(onenormest(operator))
    finally:
        np.random.set_state(before)


def factor(
    make_panel: Callable[[Any, int], Any], backend: Backend, storage: Any = None
) -> Cholesky:
    """The factor of a matrix whose panel g is made by `make_panel(storage, g)`, which returns the storage.

    `storage`, by default a new one, is overwritten. Raises NotPositiveDefiniteError, and InputError for a matrix that
    is not finite.
    """
    storage = backend.unmade() if storage is None else storage
    for g in range(backend.layout.num_panels):
        storage, bad = backend.factor_panel(make_panel(storage, g), g)
        if bad < 0:
            raise InputError(
                "the matrix has entries that are not finite: the kernel must give finite values for all "
                "pairs of examples (a cosine, for one, is not defined for an example of zeros)"
            )
        if bad:
            raise NotPositiveDefiniteError(g * backend.layout.width + bad - 1, str(backend.dtype))
    return Cholesky(backend, storage)
