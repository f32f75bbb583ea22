"""One process on a CPU: panels are NumPy arrays, and SciPy's BLAS computes with them.

On a CPU, BLAS is about three times as fast in float64 as XLA's own matrix products. Products with a
Gram matrix compute its parts on several threads, because only BLAS uses all cores by itself. The
parts are added in a fixed order. So the number of threads does not change a result.
"""

import math
from collections.abc import Callable

import numpy as np
import psutil
from jaxtyping import Float
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from rethinking.kernels import layout as layouts
from rethinking.kernels import threads
from rethinking.kernels.backend import Backend
from rethinking.kernels.gram import Kernel
from rethinking.kernels.layout import Layout

# A panel that is not computed yet is None.
Storage = list[np.ndarray | None]
# How many rows of a Gram matrix are computed at once. It bounds the kernel's temporary arrays.
ROWS = 2048
# How many arrays of that size a kernel and its products hold at once.
ARRAYS = 6


def wide_layout(n: int, num_panels: int = 0) -> Layout:
    """The layout of an n x n matrix for `BlasBackend`; `num_panels` 0 chooses it.

    BLAS is fastest with wide panels, and nothing above the diagonal is computed here. On two cores
    at n = 16,000, 8 panels ran at 130 GFLOP/s, 16 at 118 and 32 at 98.
    """
    return layouts.make(n, num_panels=num_panels or min(32, math.ceil(n / 2048)))


class BlasBackend(Backend):
    """Stores each panel as an array [rows from the diagonal down, width] without padding."""

    def __init__(self, layout: Layout, dtype: str):
        self.layout = layout
        self.dtype = np.dtype(dtype)
        sample = np.empty((1, 1), self.dtype)
        self._gemm, self._syrk, self._trsm = get_blas_funcs(("gemm", "syrk", "trsm"), (sample,))
        (self._potrf,) = get_lapack_funcs(("potrf",), (sample,))

    def __reduce__(self) -> tuple:
        return BlasBackend, (self.layout, str(self.dtype))

    def working_bytes(self, cores: int | None = None) -> int:
        rows = min(self.layout.n, ROWS)
        num_threads = threads.count(math.ceil(self.layout.n / ROWS), cores)
        panel = num_threads * ARRAYS * rows * self.layout.width * self.dtype.itemsize
        return max(panel, self.product_bytes(cores))

    def product_bytes(self, cores: int | None = None) -> int:
        """Bytes of the temporary arrays of `gram_product` and `predict`. See `working_bytes`."""
        parts = math.ceil(self.layout.n / ROWS)
        side = min(self.layout.n, ROWS)
        num_threads = threads.count(parts * (parts + 1) // 2, cores)
        return num_threads * ARRAYS * side**2 * self.dtype.itemsize

    def like(self, n: int) -> "BlasBackend":
        return BlasBackend(wide_layout(n), str(self.dtype))

    def in_float64(self) -> "BlasBackend":
        if self.dtype == np.float64:
            return self
        return BlasBackend(self.layout, "float64")

    def memories(self) -> list[tuple[str, int, int]]:
        return [("this machine", 1, psutil.virtual_memory().available)]

    def kernel_form(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(kernel(x, z))

    def kernel_values(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(kernel(self.distribute(x), self.distribute(z)))

    def distribute(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows, self.dtype)

    def distribute_examples(self, x: np.ndarray) -> np.ndarray:
        return self.distribute(x)

    def zeros(self) -> Storage:
        return [self._panel(g, np.zeros) for g in range(self.layout.num_panels)]

    def empty(self) -> Storage:
        return [None] * self.layout.num_panels

    def panel_shape(self, g: int) -> tuple[int, ...]:
        columns = self.layout.columns(g)
        return self.layout.n - columns.start, columns.stop - columns.start

    def get_panel(self, storage: Storage, g: int) -> np.ndarray:
        return storage[g]

    def put_panel(self, storage: Storage, g: int, panel: np.ndarray) -> Storage:
        storage[g] = panel
        return storage

    def gram_panel(
        self, storage: Storage, kernel: Kernel, x: np.ndarray, ridge: float, g: int
    ) -> Storage:
        columns = self.layout.columns(g)
        panel = self._panel(g, np.empty)

        def fill(part: slice) -> None:
            panel[part] = kernel(x[columns.start :][part], x[columns])

        for _ in threads.in_order(fill, _slices(len(panel))):
            pass
        storage[g] = panel
        return self.add_ridge(storage, ridge, g)

    def add_product(
        self, storage: Storage, features: Float[np.ndarray, "n f"], dtype: str | None = None
    ) -> Storage:
        features = np.ascontiguousarray(features, dtype or self.dtype)
        for g, panel in enumerate(storage):
            columns = self.layout.columns(g)
            below = features[columns.start :]
            if features.dtype == self.dtype:
                self._gemm(
                    1.0, features[columns].T, below.T, 1.0, panel.T, trans_a=True, overwrite_c=True
                )
                continue
            for part in _slices(len(panel)):
                panel[part] += below[part] @ features[columns].T
        return storage

    def add_ridge(self, storage: Storage, ridge: float, g: int) -> Storage:
        storage[g][np.diag_indices(storage[g].shape[1])] += ridge
        return storage

    def factor_panel(self, storage: Storage, g: int) -> tuple[Storage, int]:
        panel = storage[g]
        width = panel.shape[1]
        # BLAS reads a C-ordered panel as its transpose. So all calls here are for the transposes.
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
        product = np.zeros_like(v, dtype=self.dtype)
        for g, panel in enumerate(storage):
            start = self.layout.columns(g).start
            product[start:] += panel @ (panel.T @ v[start:])
        return product

    def gram_product(
        self,
        kernel: Kernel,
        x: np.ndarray,
        ridge: float,
        v: np.ndarray,
        before_part: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        def multiply(part: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray | None]:
            rows, columns = part
            block = kernel(x[rows], x[columns])
            # By symmetry a part below the diagonal is also one above it.
            above = None if rows == columns else block.T @ v[rows]
            return block @ v[columns], above

        product = ridge * v
        slices = _slices(len(x))
        parts = [(rows, columns) for g, columns in enumerate(slices) for rows in slices[g:]]
        products = threads.in_order(multiply, parts, before_part)
        for (rows, columns), (below, above) in zip(parts, products, strict=True):
            product[rows] += below
            if above is not None:
                product[columns] += above
        return product

    def predict(
        self, kernel: Kernel, x: np.ndarray, alpha: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        def multiply(part: tuple[slice, slice]) -> np.ndarray:
            batch, rows = part
            return kernel(z[batch], x[rows]) @ alpha[rows]

        outputs = np.zeros((len(z), alpha.shape[1]), self.dtype)
        parts = [(batch, rows) for batch in _slices(len(z)) for rows in _slices(len(x))]
        products = threads.in_order(multiply, parts)
        for (batch, _), product in zip(parts, products, strict=True):
            outputs[batch] += product
        return outputs

    def _panel(self, g: int, make: Callable) -> np.ndarray:
        return make(self.panel_shape(g), self.dtype)


def _slices(n: int) -> list[slice]:
    """Slices of at most ROWS rows that together cover n rows."""
    return [slice(first, min(first + ROWS, n)) for first in range(0, n, ROWS)]
