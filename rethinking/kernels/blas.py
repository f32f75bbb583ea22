"""One process on a CPU: the panels of `rethinking.kernels.layout` as NumPy arrays, worked on by SciPy's BLAS.

On a CPU that is about three times as fast in float64 as XLA's own products.
"""

from collections.abc import Callable

import numpy as np
import psutil
from jaxtyping import Float
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from rethinking.kernels.gram import Kernel
from rethinking.kernels.layout import Layout

Storage = list[np.ndarray | None]
ROWS = (
    2048  # of a Gram panel that are computed at once: the kernel's temporary arrays are that high
)


class BlasBackend:
    """What `rethinking.kernels.cholesky` needs done to a matrix.

    It is stored as a list of panels, [rows from the diagonal down, width] without padding; None where one is not made.
    """

    working_rows = ROWS  # of the temporary arrays that computing a panel takes

    def __init__(self, layout: Layout, dtype: str):
        self.layout, self.dtype = layout, np.dtype(dtype)
        sample = np.empty((1, 1), self.dtype)
        self._gemm, self._syrk, self._trsm = get_blas_funcs(("gemm", "syrk", "trsm"), (sample,))
        (self._potrf,) = get_lapack_funcs(("potrf",), (sample,))

    def deal(self, rows: np.ndarray) -> np.ndarray:
        """One value per row of the matrix, placed as the rows are."""
        return np.ascontiguousarray(rows, self.dtype)

    deal_examples = deal

    def collect(self, dealt: np.ndarray) -> np.ndarray:
        """The inverse of `deal`."""
        return dealt

    def zeros(self) -> Storage:
        """The storage of a matrix to which products are to be added."""
        return [self._empty(g, np.zeros) for g in range(self.layout.num_panels)]

    def unmade(self) -> Storage:
        """The storage of a matrix whose panels are to be made one by one."""
        return [None] * self.layout.num_panels

    def gram_panel(
        self, storage: Storage, kernel: Kernel, x: np.ndarray, ridge: float, g: int
    ) -> Storage:
        """Makes panel g that of the kernel's Gram matrix of x [n, d] plus ridge times the identity."""
        columns = self.layout.columns(g)
        storage[g] = panel = self._empty(g, np.empty)
        for first in range(0, len(panel), ROWS):
            rows = x[columns.start + first : columns.start + min(first + ROWS, len(panel))]
            panel[first : first + len(rows)] = kernel(rows, x[columns])
        return self.add_ridge(storage, ridge, g)

    def add_product(self, storage: Storage, features: Float[np.ndarray, "n f"]) -> Storage:
        """Adds features features^T."""
        features = self.deal(features)
        for g, panel in enumerate(storage):
            columns = self.layout.columns(g)
            below = features[columns.start :]
            self._gemm(
                1.0, features[columns].T, below.T, 1.0, panel.T, trans_a=True, overwrite_c=True
            )
        return storage

    def add_ridge(self, storage: Storage, ridge: float, g: int) -> Storage:
        """Adds ridge to the diagonal within panel g."""
        storage[g][np.diag_indices(storage[g].shape[1])] += ridge
        return storage

    def factor_panel(self, storage: Storage, g: int) -> tuple[Storage, int]:
        """Makes panel g of the matrix that of the factor, given the factor's panels before.

        Also returns the first of its columns, counted from 1, at which the matrix is seen not to be positive definite,
        or 0; -1 where it is not finite.
        """
        panel = storage[g]
        width = panel.shape[1]
        # BLAS reads a C-ordered panel as its transpose, which is what it is told to work on.
        diagonal = np.array(panel[:width].T, order="F")
        for k, done in enumerate(storage[:g]):
            first = (g - k) * self.layout.width
            block = done[first : first + width].T
            self._syrk(-1.0, block, 1.0, diagonal, trans=True, lower=False, overwrite_c=True)
            if len(panel) > width:
                below = panel[width:].T
                self._gemm(
                    -1.0, block, done[first + width :].T, 1.0, below, trans_a=True, overwrite_c=True
                )
        if not np.isfinite(diagonal).all():
            return storage, -1
        upper, bad = self._potrf(diagonal, lower=False, clean=True, overwrite_a=True)
        panel[:width] = upper.T
        if not bad and len(panel) > width:
            self._trsm(1.0, upper, panel[width:].T, trans_a=True, lower=False, overwrite_b=True)
        return storage, bad

    def solve(self, storage: Storage, b: np.ndarray) -> np.ndarray:
        """Solves L L^T x = b, for b [n, c]."""
        x = np.array(b, self.dtype, order="C")
        for g, panel in enumerate(storage):
            columns, width = self.layout.columns(g), panel.shape[1]
            x[columns] = self._trsm(1.0, panel[:width].T, x[columns], trans_a=True, lower=False)
            x[columns.stop :] -= panel[width:] @ x[columns]
        for g, panel in reversed(list(enumerate(storage))):
            columns, width = self.layout.columns(g), panel.shape[1]
            x[columns] -= panel[width:].T @ x[columns.stop :]
            x[columns] = self._trsm(1.0, panel[:width].T, x[columns], lower=False)
        return x

    def multiply(self, storage: Storage, v: np.ndarray) -> np.ndarray:
        """L L^T v, for v [n, c]."""
        product = np.zeros_like(v, dtype=self.dtype)
        for g, panel in enumerate(storage):
            start = self.layout.columns(g).start
            product[start:] += panel @ (panel.T @ v[start:])
        return product

    def gram_product(
        self, kernel: Kernel, x: np.ndarray, ridge: float, v: np.ndarray
    ) -> np.ndarray:
        """(K + ridge I) v for the kernel's Gram matrix K of x and v [n, c], with little memory."""
        product = ridge * v
        parts = [slice(first, min(first + ROWS, len(x))) for first in range(0, len(x), ROWS)]
        for index, columns in enumerate(parts):
            for rows in parts[index:]:
                block = kernel(x[rows], x[columns])
                product[rows] += block @ v[columns]
                if rows != columns:
                    product[columns] += block.T @ v[rows]
        return product

    def predict(
        self, kernel: Kernel, x: np.ndarray, alpha: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """sum_i k(z_j, x_i) alpha_i for z [m, d]; [m, c]."""
        batches = np.split(z, range(ROWS, len(z), ROWS))
        parts = range(0, len(x), ROWS)
        return np.concatenate(
            [
                sum(kernel(batch, x[i : i + ROWS]) @ alpha[i : i + ROWS] for i in parts)
                for batch in batches
            ]
        )

    def _empty(self, g: int, make: Callable) -> np.ndarray:
        columns = self.layout.columns(g)
        return make((self.layout.n - columns.start, columns.stop - columns.start), self.dtype)

    def memories(self) -> list[tuple[str, int, int]]:
        """(name, devices that share it, free bytes) of every memory that is used."""
        return [("this machine", 1, psutil.virtual_memory().available)]
