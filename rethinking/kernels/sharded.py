"""Any number of devices and processes: the panels of `rethinking.kernels.layout` as sharded JAX arrays.

Each device works on its own rows; what it needs of others' is the block row of the panel at hand, gathered piece by
piece. Programs have the shapes of one panel, so that nothing is computed twice and little above the diagonal.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax import lax
from jax.scipy.linalg import solve_triangular
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.linalg import get_lapack_funcs

from rethinking.kernels.gram import Kernel
from rethinking.kernels.layout import Layout

BATCH = 4096  # examples that are predicted at once
TPU_BLOCK = 128  # columns that a TPU solves for at once


class ShardedBackend:
    """What `rethinking.kernels.cholesky` needs done to panels. A panel is [dealt rows from its diagonal down, width].

    float64 needs `jax.enable_x64`, switched on around every call, construction included.
    """

    def __init__(self, layout: Layout, dtype: str, mesh: Mesh):
        self.layout, self.dtype, self.mesh = layout, jnp.dtype(dtype), mesh
        (self.axis,) = mesh.axis_names
        self.rows, self.replicated = PartitionSpec(self.axis), PartitionSpec()
        self.platform = mesh.devices.flat[0].platform
        self._programs: dict[Any, Callable] = {}

    def deal(self, rows: np.ndarray) -> jax.Array:
        """One value per row of the matrix, placed as the rows are; zero for the rows that pad it."""
        order, n = self.layout.order, self.layout.n
        padded = np.where(order.reshape(-1, *[1] * (rows.ndim - 1)) < n, rows[np.minimum(order, n - 1)], 0)
        padded = padded.astype(self.dtype)
        return jax.make_array_from_callback(padded.shape, NamedSharding(self.mesh, self.rows), padded.__getitem__)

    def collect(self, dealt: jax.Array) -> np.ndarray:
        """The inverse of `deal`, on every process."""
        replicate = self._program("collect", lambda: jax.jit(
            lambda x: x, out_shardings=NamedSharding(self.mesh, self.replicated)))
        rows = np.asarray(replicate(dealt).addressable_data(0))
        whole = np.empty_like(rows)
        whole[self.layout.order] = rows
        return whole[: self.layout.n]

    def gram_panel(self, kernel: Kernel, x: jax.Array, ridge: float, g: int) -> jax.Array:
        """Panel g of the kernel's Gram matrix of the dealt examples x plus ridge times the identity."""

        def compute(x, ridge):
            mine = self._below(x, g)
            return self._add_ridge(kernel(mine, self._gather(mine[: self.layout.block(g)])), ridge, g)

        program = self._compiled(("gram", kernel, g), compute, (self.rows, self.replicated))
        return program(x, jnp.asarray(ridge, self.dtype))

    def empty_panel(self, g: int) -> jax.Array:
        shape = (self.layout.height(g) * self.layout.num_devices, self.layout.widths[g])
        zeros = self._program(("empty", g), lambda: jax.jit(
            functools.partial(jnp.zeros, shape, self.dtype), out_shardings=NamedSharding(self.mesh, self.rows)))
        return zeros()

    def add_product(self, panel: jax.Array, features: jax.Array, g: int) -> jax.Array:
        """Adds panel g of features features^T, for dealt features; `panel` is overwritten."""

        def compute(panel, features):
            mine = self._below(features, g)
            return panel + mine @ self._gather(mine[: self.layout.block(g)]).T

        return self._compiled(("product", g), compute, (self.rows, self.rows), donate=0)(panel, features)

    def add_ridge(self, panel: jax.Array, ridge: float, g: int) -> jax.Array:
        """Adds ridge to the diagonal and makes the padding the identity; `panel` is overwritten."""
        program = self._compiled(("ridge", g), lambda panel, ridge: self._add_ridge(panel, ridge, g),
                                 (self.rows, self.replicated), donate=0)
        return program(panel, jnp.asarray(ridge, self.dtype))

    def factor_panel(self, factored: Sequence[jax.Array], panel: jax.Array, g: int) -> tuple[jax.Array, int]:
        """Panel g of the factor from that of the matrix, overwritten, and all panels before.

        Also returns the first of its columns, counted from 1, at which the matrix is seen not to be positive definite,
        or 0.
        """
        update, factor, solve = self.factor_programs(g)
        panel, diagonal = update(panel, *factored)
        lower, failed = factor(diagonal)
        panel = solve(panel, lower)
        if not np.asarray(failed.addressable_data(0)).any():
            return panel, 0
        diagonal = np.array(diagonal.addressable_data(0), order="F")
        (potrf,) = get_lapack_funcs(("potrf",), (diagonal,))
        return panel, potrf(diagonal, lower=True)[1] or self.layout.widths[g]

    def factor_programs(self, g: int) -> tuple[Callable, Callable, Callable]:
        """The three programs that make panel g of the factor; those for the diagonal block depend on its width alone.

        (panel, panels of the factor before it) -> (updated panel, its diagonal block, one copy per device);
        diagonal block -> (its factor, whether that failed), likewise; (updated panel, that factor) -> the panel.
        """
        width, block, start = self.layout.widths[g], self.layout.block(g), self.layout.start(g)

        def update(panel, *factored):
            for k, done in enumerate(factored):
                mine = done[start - self.layout.start(k) :]
                panel = panel - mine @ self._gather(mine[:block]).T
            return panel, self._gather(panel[:block])

        def factor(diagonal):
            lower = jnp.tril(jnp.linalg.cholesky(diagonal, symmetrize_input=False))
            return lower, jnp.isnan(lower).any()[None]

        def solve(panel, lower):
            own = lax.dynamic_slice_in_dim(lower, lax.axis_index(self.axis) * block, block)
            return jnp.concatenate([own, self._solve_rows(lower, panel[block:])])

        return (self._compiled(("update", g), update, (self.rows,) * (g + 1), donate=0),
                self._compiled(("diagonal", width), factor, (self.rows,)),
                self._compiled(("below", g), solve, (self.rows,) * 2, donate=0))

    def solve(self, panels: Sequence[jax.Array], b: np.ndarray) -> np.ndarray:
        """Solves L L^T x = b, for b [n, c]."""

        def compute(x, *panels):
            for g, panel in enumerate(panels):
                x = self._forward(panel, x, g)
            for g, panel in reversed(list(enumerate(panels))):
                x = self._backward(panel, x, g)
            return x

        program = self._compiled("solve", compute, (self.rows,) * (1 + len(panels)))
        return self.collect(program(self.deal(b), *panels))

    def multiply(self, panels: Sequence[jax.Array], v: np.ndarray) -> np.ndarray:
        """L L^T v, for v [n, c]."""

        def compute(v, *panels):
            product = jnp.zeros_like(v)
            for g, panel in enumerate(panels):
                part = panel @ lax.psum(panel.T @ self._below(v, g), self.axis)
                product = product.at[self.layout.start(g) :].add(part)
            return product

        program = self._compiled("multiply", compute, (self.rows,) * (1 + len(panels)))
        return self.collect(program(self.deal(v), *panels))

    def gram_product(self, kernel: Kernel, x: jax.Array, ridge: float, v: np.ndarray) -> np.ndarray:
        """(K + ridge I) v for the kernel's Gram matrix K of the dealt examples x and v [n, c]."""
        v = self.deal(v)
        product = jnp.zeros_like(v)
        for g in range(self.layout.num_panels):
            product = self._gram_product_part(g)(product, self.gram_panel(kernel, x, ridge, g), v)
        return self.collect(product)

    def predict(self, kernel: Kernel, x: jax.Array, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        """sum_i k(z_j, x_i) alpha_i for z [m, d]; [m, c]."""

        def compute(x, alpha, z):
            return lax.psum(kernel(z, x) @ alpha, self.axis)

        program = self._compiled(("predict", kernel), compute, (self.rows, self.rows, self.replicated),
                                 out_specs=self.replicated)
        alpha = self.deal(alpha)
        batches = np.split(z.astype(self.dtype), range(BATCH, len(z), BATCH))
        return np.concatenate([np.asarray(program(x, alpha, batch).addressable_data(0)) for batch in batches])

    @property
    def working_rows(self) -> int:
        """Rows of the temporary arrays that computing a panel takes."""
        return self.layout.size // self.layout.num_devices

    def memories(self) -> list[tuple[str, int, int]]:
        """(name, devices that share it, free bytes) of every memory of this process that is used, as far as known."""
        devices = [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]
        if self.platform == "cpu":
            return [("this machine", len(devices), psutil.virtual_memory().available)]
        stats = [(str(device), device.memory_stats() or {}) for device in devices]
        return [(name, 1, s["bytes_limit"] - s["bytes_in_use"]) for name, s in stats if "bytes_limit" in s]

    def _solve_rows(self, lower: jax.Array, rows: jax.Array) -> jax.Array:
        """x with x lower^T = rows. On a TPU in a loop: it took XLA minutes to compile the whole."""
        width = lower.shape[0]
        if self.platform != "tpu" or width <= TPU_BLOCK:
            return solve_triangular(lower, rows.T, lower=True).T
        missing = -width % TPU_BLOCK
        padded = jnp.pad(lower, (0, missing)) + jnp.diag(jnp.arange(width + missing) >= width).astype(lower.dtype)
        rows = jnp.pad(rows, ((0, 0), (0, missing)))

        def step(j, solved):
            first = j * TPU_BLOCK
            factor = lax.dynamic_slice_in_dim(padded, first, TPU_BLOCK)
            right = lax.dynamic_slice_in_dim(rows, first, TPU_BLOCK, axis=1) - solved @ factor.T
            corner = lax.dynamic_slice_in_dim(factor, first, TPU_BLOCK, axis=1)
            return lax.dynamic_update_slice_in_dim(solved, solve_triangular(corner, right.T, lower=True).T, first, 1)

        return lax.fori_loop(0, (width + missing) // TPU_BLOCK, step, jnp.zeros_like(rows))[:, :width]

    def _below(self, rows: jax.Array, g: int) -> jax.Array:
        """A device's own rows from panel g's diagonal block on."""
        return rows[self.layout.start(g) :]

    def _gather(self, block: jax.Array) -> jax.Array:
        """A block row, from the block that each device owns; in the matrix's order, since a block is one device's."""
        return lax.all_gather(block, self.axis, tiled=True)

    def _add_ridge(self, panel: jax.Array, ridge: jax.Array, g: int) -> jax.Array:
        """Adds ridge to the diagonal of a device's part of panel g, and overwrites the padding by the identity."""
        first = lax.axis_index(self.axis) * (self.layout.size // self.layout.num_devices) + self.layout.start(g)
        order = jnp.asarray(self.layout.order, jnp.int32)
        rows = lax.dynamic_slice_in_dim(order, first, panel.shape[0])[:, None]
        columns = jnp.arange(*self.layout.offsets[g : g + 2], dtype=jnp.int32)[None, :]
        inside = (rows < self.layout.n) & (columns < self.layout.n)
        return jnp.where(inside, panel, 0) + jnp.where(rows == columns, jnp.where(inside, ridge, 1), 0)

    def _forward(self, panel: jax.Array, x: jax.Array, g: int) -> jax.Array:
        block, start = self.layout.block(g), self.layout.start(g)
        solved = solve_triangular(self._gather(panel[:block]), self._gather(x[start : start + block]), lower=True)
        own = lax.dynamic_slice_in_dim(solved, lax.axis_index(self.axis) * block, block)
        return jnp.concatenate([x[:start], own, x[start + block :] - panel[block:] @ solved])

    def _backward(self, panel: jax.Array, x: jax.Array, g: int) -> jax.Array:
        block, start = self.layout.block(g), self.layout.start(g)
        known = lax.psum(panel[block:].T @ x[start + block :], self.axis)
        right = self._gather(x[start : start + block]) - known
        solved = solve_triangular(self._gather(panel[:block]), right, trans=1, lower=True)
        own = lax.dynamic_slice_in_dim(solved, lax.axis_index(self.axis) * block, block)
        return jnp.concatenate([x[:start], own, x[start + block :]])

    def _gram_product_part(self, g: int) -> Callable:
        block = self.layout.block(g)

        def compute(product, lower, v):
            mine = self._below(v, g)
            product = product.at[self.layout.start(g) :].add(lower @ self._gather(mine[:block]))
            above = lax.psum(lower[block:].T @ mine[block:], self.axis)
            own = lax.dynamic_slice_in_dim(above, lax.axis_index(self.axis) * block, block)
            return product.at[self.layout.start(g) : self.layout.start(g) + block].add(own)

        return self._compiled(("gram product", g), compute, (self.rows,) * 3, donate=0)

    def _compiled(self, name: Any, function: Callable, in_specs: tuple, donate: int | None = None,
                  out_specs: PartitionSpec | None = None) -> Callable:  # fmt: skip
        """`function` of each device's own parts, jitted once under `name`, with products at full precision."""

        def precise(*arguments):
            with jax.default_matmul_precision("highest"):
                return function(*arguments)

        return self._program(name, lambda: jax.jit(
            jax.shard_map(precise, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs or self.rows),
            donate_argnums=() if donate is None else donate))

    def _program(self, name: Any, make: Callable[[], Callable]) -> Callable:
        if name not in self._programs:
            self._programs[name] = make()
        return self._programs[name]
