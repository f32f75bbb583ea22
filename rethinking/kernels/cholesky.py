"""The Cholesky factor of a symmetric positive definite matrix, half of it stored, on many devices.

The factorization is left-looking. It makes panel g of the matrix in the place of panel g of the
factor. It subtracts the products of all earlier panels, and overwrites the result with panel g of
the factor. So only the factor is stored.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, onenormest

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import layout as layouts
from rethinking.kernels.backend import Backend
from rethinking.kernels.blas import BlasBackend, wide_layout
from rethinking.kernels.kept import Kept
from rethinking.kernels.sharded import ShardedBackend

_LOG = logging.getLogger(__name__)
# Refinement stops below this residual, relative to the right-hand side.
REFINED = 1e-10
# A solution with a larger residual is refused.
LARGEST_RESIDUAL = 1e-8
MOST_REFINEMENTS = 20


class NotPositiveDefiniteError(InputError):
    """The matrix has no Cholesky factor. `pivot` is the first row, from 0, that shows it."""

    def __init__(self, pivot: int, dtype: str):
        remedies = ["remove examples that repeat others", "add a ridge"]
        if dtype != "float64":
            remedies.append("compute in float64")
        super().__init__(
            f"the matrix is not positive definite in {dtype}: pivot {pivot} is not above zero. "
            f"Remedies: {', '.join(remedies)}, or choose a narrower kernel."
        )
        self.pivot, self.dtype = pivot, dtype

    def __reduce__(self) -> tuple:
        return NotPositiveDefiniteError, (self.pivot, self.dtype)


def make_backend(n: int, dtype: str, mesh: Mesh | None = None, num_panels: int = 0) -> Backend:
    """The backend for an n x n matrix on the devices of `mesh`, by default on all devices.

    A single CPU device uses SciPy's BLAS. A TPU has no float64, so for float64 its host's
    processors use SciPy's BLAS. In all other cases JAX computes on the devices.

    Args:
        n: rows of the matrix.
        dtype: "float64" or "float32".
        mesh: devices along a single axis.
        num_panels: 0 chooses it.

    Raises InputError for n below 1 and for other dtypes.
    """
    if n < 1:
        raise InputError(f"a system of n = {n} examples: at least 1 is needed")
    if not isinstance(dtype, str) or dtype not in ("float32", "float64"):
        raise InputError(
            f'dtype={dtype!r}: a factor is computed in "float32" or "float64". Give one of these.'
        )
    if mesh is None:
        mesh = sharding.device_mesh(0, "rows")
    if not isinstance(mesh, Mesh) or len(mesh.axis_names) != 1:
        raise InputError(
            f"mesh={mesh!r}: it must have a single axis. Give jax.sharding.Mesh(devices, "
            '("rows",)) with a list of devices.'
        )
    platform = mesh.devices.flat[0].platform
    lacks_float64 = platform == "tpu" and dtype == "float64"
    if lacks_float64:
        _LOG.info(
            "A TPU has no float64, so this host's processors solve the system. "
            'With dtype="float32" the TPU factors the matrix, and the host refines the solution.'
        )
    if lacks_float64 or (mesh.size == 1 and platform == "cpu"):
        return BlasBackend(wide_layout(n, num_panels), dtype)
    return ShardedBackend(layouts.make(n, mesh.size, num_panels), dtype, mesh)


class Cholesky:
    """L with L L^T = A, in the storage of its backend; `factor` makes it."""

    def __init__(self, backend: Backend, storage: Any):
        self.backend = backend
        self.storage = storage

    def solve(self, b: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """x with A x = b."""
        return self.backend.solve(self.storage, b)

    def multiply(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """A v, computed as L (L^T v)."""
        return self.backend.multiply(self.storage, v)

    @functools.cached_property
    def norm(self) -> float:
        """An estimate of A's 1-norm (Higham and Tisseur, 2000).

        It is never above the norm, and seldom far below it.
        """
        return _one_norm(self.multiply, self.backend.layout.n)

    @functools.cached_property
    def condition(self) -> float:
        """An estimate of A's condition number in the 1-norm: A's norm times its inverse's norm."""
        return self.norm * _one_norm(self.solve, self.backend.layout.n)


def _one_norm(product: Callable[[np.ndarray], np.ndarray], n: int) -> float:
    """The 1-norm of a symmetric n x n matrix, given the function that multiplies it by [n, c]."""
    if n < 5:  # The estimate needs more rows.
        return float(np.abs(product(np.eye(n))).sum(0).max())

    def vector(v: np.ndarray) -> np.ndarray:
        return product(v.reshape(n, 1))[:, 0]

    operator = LinearOperator(
        (n, n), dtype=np.float64, matvec=vector, rmatvec=vector, matmat=product, rmatmat=product
    )
    # SciPy draws from NumPy's global generator, and all processes must draw the same numbers.
    before = np.random.get_state()
    try:
        np.random.seed(0)
        return float(onenormest(operator))
    finally:
        np.random.set_state(before)


def factor(
    make_panel: Callable[[Any, int], Any],
    backend: Backend,
    storage: Any = None,
    kept: Kept | None = None,
) -> Cholesky:
    """The factor of a matrix whose panels are made one by one.

    Args:
        make_panel: `make_panel(storage, g)` returns the storage with panel g of the matrix.
        backend: where the matrix is stored.
        storage: is overwritten; by default an empty one.
        kept: gives the panels of an interrupted factorization, and keeps those of this one.

    Raises NotPositiveDefiniteError, and InputError if the matrix is not finite.
    """
    if storage is None:
        storage = backend.empty()
    first = 0
    if kept is not None:
        storage, first = kept.restore_factor(storage)
    for g in range(first, backend.layout.num_panels):
        storage, bad = backend.factor_panel(make_panel(storage, g), g)
        if bad < 0:
            raise InputError(
                f"the matrix has entries that are not finite in {backend.dtype}. The kernel must "
                "give finite values for all pairs of examples. A cosine, for instance, is "
                "undefined for zero vectors, and powers of large numbers overflow."
            )
        if bad:
            raise NotPositiveDefiniteError(g * backend.layout.width + bad - 1, str(backend.dtype))
        if kept is not None:
            kept.note_factor(storage, g + 1)
    return Cholesky(backend, storage)


class Solution(NamedTuple):
    """alpha with A alpha = targets up to `residual` = targets - A alpha, in float64."""

    alpha: Float[np.ndarray, "n c"]
    residual: Float[np.ndarray, "n c"]
    refinements: int


def _relative(
    residual: Float[np.ndarray, "n c"], targets: Float[np.ndarray, "n c"], axis: int | None
) -> float:
    """||residual|| / ||targets||: as a whole, or with axis 0 the largest of the outputs."""
    scale = np.linalg.norm(targets, axis=axis)
    return (np.linalg.norm(residual, axis=axis) / np.where(scale == 0, 1, scale)).max()


def refine(factor: Cholesky, product: Callable, targets: Float[np.ndarray, "n c"]) -> Solution:
    """The solution of A alpha = targets by iterative refinement.

    Refinement stops when the residual is small enough, as a whole and for each output, or when a
    step does not halve it. Raises InputError if the residual of an output is too large then.

    Args:
        factor: of A; it may be in float32.
        product: A times an array [n, c], in float64.
        targets: the right-hand sides.
    """
    alpha = factor.solve(targets).astype(np.float64)
    residual = targets - product(alpha)
    steps = 0
    # First the residual as a whole, then that of the worst output.
    for axis, goal in ((None, REFINED), (0, LARGEST_RESIDUAL)):
        size = _relative(residual, targets, axis)
        while size > goal and steps < MOST_REFINEMENTS:
            better = alpha + factor.solve(residual)
            left = targets - product(better)
            before, size_left = size, _relative(left, targets, axis)
            if not size_left < before:
                break
            alpha, residual, size = better, left, size_left
            steps += 1
            _LOG.info("Refinement %d: residual %.1e", steps, size)
            if size > before / 2:
                break
    # NaN fails this comparison, too.
    if not size <= LARGEST_RESIDUAL:
        remedy = "" if factor.backend.dtype == np.float64 else "float64, "
        raise InputError(
            f"the {factor.backend.dtype} factor reaches a residual of {size:.1e} after {steps} "
            f"refinements, not {LARGEST_RESIDUAL:g}: the matrix is too ill-conditioned for it. "
            f"Remedies: {remedy}a ridge, or a narrower kernel."
        )
    return Solution(alpha, residual, steps)
