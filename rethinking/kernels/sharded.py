"""Any number of devices and processes: a matrix of `rethinking.kernels.layout` as one sharded JAX array of tiles.

Each device works on its own tiles; what it needs of others' is the block row of the panel at hand, gathered tile by
tile. All loops run over exactly the tiles at and below the diagonal, with the panel's number as an argument: a handful
of small programs serve every panel, and hold no more than a few tiles beside the matrix.
"""

import functools
import math
from collections.abc import Callable
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

BATCH = 4096  # at most so many examples are predicted at once
TPU_BLOCK = 128  # rows that a TPU solves for at once


class ShardedBackend:
    """What `rethinking.kernels.cholesky` needs done to a matrix, stored as [tiles of all devices, block, width].

    Methods that return a storage overwrite the one that they are given. Vectors that go with the rows are dealt as they
    are: [slots of all devices, block, ...]. float64 needs `jax.enable_x64` around every call, construction included.
    """

    def __init__(self, layout: Layout, dtype: str, mesh: Mesh):
        self.layout, self.dtype, self.mesh = layout, jnp.dtype(dtype), mesh
        self.platform = mesh.devices.flat[0].platform
        (self.axis,) = mesh.axis_names
        self.dealt, self.replicated = PartitionSpec(self.axis), PartitionSpec()
        self.working_rows = layout.block  # of the temporary arrays that computing a panel takes
        self._programs: dict[Any, Callable] = {}

    def deal_examples(self, x: np.ndarray) -> jax.Array:
        """The examples of a Gram matrix, placed as its rows are. The last one stands for those that pad it, with which
        the kernel is called too: it need not be defined at zero."""
        return self.deal(x, padding=None)

    def deal(self, rows: np.ndarray, dtype: Any = None, padding: float | None = 0.0) -> jax.Array:
        """One value per row of the matrix, placed as the rows are; `padding`, or else the last, where they pad it."""
        places, dtype = self.layout, dtype or self.dtype
        order = places.order.reshape(-1, places.block)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            mine = order[index[0]]
            values = rows[np.minimum(mine, places.n - 1)].astype(dtype, copy=False)
            if padding is not None:
                values[mine >= places.n] = padding
            return values

        shape = (*order.shape, *rows.shape[1:])
        return jax.make_array_from_callback(shape, NamedSharding(self.mesh, self.dealt), part)

    def collect(self, dealt: jax.Array) -> np.ndarray:
        """The inverse of `deal`, on every process."""
        replicate = self._program(
            "collect",
            lambda: jax.jit(lambda x: x, out_shardings=NamedSharding(self.mesh, self.replicated)),
        )
        rows = np.asarray(replicate(dealt).addressable_data(0))
        whole = np.empty((self.layout.size, *rows.shape[2:]), rows.dtype)
        whole[self.layout.order] = rows.reshape(whole.shape)
        return whole[: self.layout.n]

    def zeros(self) -> jax.Array:
        """The storage of a matrix to which products are to be added."""
        places = self.layout
        shape = (places.num_tiles * places.num_devices, places.block, places.width)
        zeros = self._program(
            "zeros",
            lambda: jax.jit(
                functools.partial(jnp.zeros, shape, self.dtype),
                out_shardings=NamedSharding(self.mesh, self.dealt),
            ),
        )
        return zeros()

    unmade = zeros  # The storage of a matrix whose panels are to be made one by one.

    def gram_panel(
        self, storage: jax.Array, kernel: Kernel, x: jax.Array, ridge: float, g: int
    ) -> jax.Array:
        """Makes panel g that of the kernel's Gram matrix of the dealt examples x plus ridge times the identity."""

        def compute(tiles, x, ridge, g):
            columns = self._gather(x[g])

            def make(slot, tiles):
                return self._set(
                    tiles, g, slot, self._with_ridge(kernel(x[slot], columns), ridge, g, slot)
                )

            return self._loop(g, make, tiles)

        shared = self._number(ridge), jnp.int32(g)
        return self._run(("gram", kernel), compute, storage, x, shared=shared, donate=True)

    def gram_product(self, kernel: Kernel, x: jax.Array, ridge: float, v: np.ndarray) -> np.ndarray:
        """(K + ridge I) v for the kernel's Gram matrix K of the dealt examples x and v [n, c], with little memory."""

        def compute(x, v, ridge):
            def multiply_columns(g, product):
                columns, theirs = self._gather(x[g]), self._gather(v[g])

                def multiply(slot, carry):
                    product, above = carry
                    tile = self._with_ridge(kernel(x[slot], columns), ridge, g, slot)
                    above += jnp.where(slot > g, 1, 0).astype(tile.dtype) * (tile.T @ v[slot])
                    return product.at[slot].add(tile @ theirs), above

                start = product, self._zeros(*theirs.shape)
                product, above = self._loop(g, multiply, start)
                return product.at[g].add(self._own(lax.psum(above, self.axis)))

            return self._loop(0, multiply_columns, self._zeros(*v.shape))

        program = ("gram product", kernel)
        return self.collect(
            self._run(program, compute, x, self.deal(v), shared=(self._number(ridge),))
        )

    def add_product(self, storage: jax.Array, features: np.ndarray) -> jax.Array:
        """Adds features features^T, for features [n, f]."""

        def compute(tiles, features):
            features = features.astype(self.dtype)

            def add_panel(g, tiles):
                columns = self._gather(features[g]).T

                def add(slot, tiles):
                    return self._set(
                        tiles, g, slot, self._tile(tiles, g, slot) + features[slot] @ columns
                    )

                return self._loop(g, add, tiles)

            return self._loop(0, add_panel, tiles)

        return self._run(
            "add product", compute, storage, self.deal(features, features.dtype), donate=True
        )

    def add_ridge(self, storage: jax.Array, ridge: float, g: int) -> jax.Array:
        """Adds ridge to the diagonal within panel g, and makes its padding the identity."""

        def compute(tiles, ridge, g):
            def add(slot, tiles):
                return self._set(
                    tiles, g, slot, self._with_ridge(self._tile(tiles, g, slot), ridge, g, slot)
                )

            return self._loop(g, add, tiles)

        return self._run(
            "add ridge", compute, storage, shared=(self._number(ridge), jnp.int32(g)), donate=True
        )

    def factor_panel(self, storage: jax.Array, g: int) -> tuple[jax.Array, int]:
        """Makes panel g of the matrix that of the factor, given the factor's panels before.

        Also returns the first of its columns, counted from 1, at which the matrix is seen not to be positive definite,
        or 0; -1 where it is not finite.
        """
        storage, diagonal = self._run(
            "update", self.update, storage, shared=(jnp.int32(g),), donate=True
        )
        lower, failed = self._run("diagonal", self.factor_diagonal, diagonal)
        storage = self._run(
            "below", self.solve_below, storage, lower, shared=(jnp.int32(g),), donate=True
        )
        if not np.asarray(failed.addressable_data(0)).any():
            return storage, 0
        diagonal = np.array(diagonal.addressable_data(0), order="F")
        if not np.isfinite(diagonal).all():
            return storage, -1
        (potrf,) = get_lapack_funcs(("potrf",), (diagonal,))
        return storage, potrf(diagonal, lower=True)[1] or self.layout.width

    def update(self, tiles: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """On each device: panel g less the products of the panels before it, and its diagonal block."""

        def subtract_panel(k, tiles):
            columns = self._gather(self._tile(tiles, k, g)).T

            def subtract(slot, tiles):
                rest = self._tile(tiles, g, slot) - self._tile(tiles, k, slot) @ columns
                return self._set(tiles, g, slot, rest)

            return self._loop(g, subtract, tiles)

        tiles = self._loop(0, subtract_panel, tiles, stop=g)
        return tiles, self._gather(self._tile(tiles, g, g))

    def factor_diagonal(self, diagonal: jax.Array) -> tuple[jax.Array, jax.Array]:
        """On each device: the factor of a diagonal block, and whether it has none."""
        lower = jnp.tril(jnp.linalg.cholesky(diagonal, symmetrize_input=False))
        return lower, jnp.isnan(lower).any()[None]

    def solve_below(self, tiles: jax.Array, lower: jax.Array, g: jax.Array) -> jax.Array:
        """On each device: panel g of the factor, from its updated panel and the factor of its diagonal block."""

        def solve(slot, tiles):
            return self._set(tiles, g, slot, self._solve(lower, self._tile(tiles, g, slot).T).T)

        return self._loop(g + 1, solve, self._set(tiles, g, g, self._own(lower)))

    def solve(self, storage: jax.Array, b: np.ndarray) -> np.ndarray:
        """Solves L L^T x = b, for b [n, c]."""

        def forward(tiles, x, g):
            solved = self._solve(self._gather(self._tile(tiles, g, g)), self._gather(x[g]))

            def subtract(slot, x):
                return x.at[slot].add(-self._tile(tiles, g, slot) @ solved)

            return self._loop(g + 1, subtract, x.at[g].set(self._own(solved)))

        def backward(tiles, x, g):
            def multiply(slot, known):
                return known + self._tile(tiles, g, slot).T @ x[slot]

            zeros = self._zeros(self.layout.width, x.shape[2])
            known = lax.psum(self._loop(g + 1, multiply, zeros), self.axis)
            right = self._gather(x[g]) - known
            return x.at[g].set(
                self._own(
                    self._solve(self._gather(self._tile(tiles, g, g)), right, transposed=True)
                )
            )

        def compute(tiles, x):
            x = self._loop(0, lambda g, x: forward(tiles, x, g), x)
            return self._loop(0, lambda g, x: backward(tiles, x, self.layout.num_panels - 1 - g), x)

        return self.collect(self._run("solve", compute, storage, self.deal(b)))

    def multiply(self, storage: jax.Array, v: np.ndarray) -> np.ndarray:
        """L L^T v, for v [n, c]."""

        def compute(tiles, v):
            def multiply_panel(g, product):
                def inner(slot, total):
                    return total + self._tile(tiles, g, slot).T @ v[slot]

                zeros = self._zeros(self.layout.width, v.shape[2])
                total = lax.psum(self._loop(g, inner, zeros), self.axis)

                def outer(slot, product):
                    return product.at[slot].add(self._tile(tiles, g, slot) @ total)

                return self._loop(g, outer, product)

            return self._loop(0, multiply_panel, self._zeros(*v.shape))

        return self.collect(self._run("multiply", compute, storage, self.deal(v)))

    def predict(self, kernel: Kernel, x: jax.Array, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        """sum_i k(z_j, x_i) alpha_i for z [m, d]; [m, c]."""

        def compute(x, alpha, z):
            def add(slot, outputs):
                return outputs + kernel(z, x[slot]) @ alpha[slot]

            zeros = self._zeros(z.shape[0], alpha.shape[2])
            return lax.psum(self._loop(0, add, zeros), self.axis)[None]

        alpha, outputs = self.deal(alpha), []
        # Batches of one size, so that one program serves them all; the last example fills up the last of them.
        size = math.ceil(len(z) / math.ceil(len(z) / BATCH))
        padded = np.concatenate([z, z[-1:].repeat(-len(z) % size, axis=0)]).astype(self.dtype)
        for batch in np.split(padded, range(size, len(padded), size)):
            parts = self._run(("predict", kernel), compute, x, alpha, shared=(batch,))
            outputs.append(np.asarray(parts.addressable_data(0))[0])
        return np.concatenate(outputs)[: len(z)]

    def memories(self) -> list[tuple[str, int, int]]:
        """(name, devices that share it, free bytes) of every memory of this process that is used, as far as known."""
        devices = [
            device
            for device in self.mesh.devices.flat
            if device.process_index == jax.process_index()
        ]
        if self.platform == "cpu":
            return [("this machine", len(devices), psutil.virtual_memory().available)]
        stats = [(str(device), device.memory_stats() or {}) for device in devices]
        return [
            (name, 1, s["bytes_limit"] - s["bytes_in_use"])
            for name, s in stats
            if "bytes_limit" in s
        ]

    def _tile(self, tiles: jax.Array, panel: jax.Array | int, slot: jax.Array | int) -> jax.Array:
        return lax.dynamic_index_in_dim(tiles, self.layout.tile(panel, slot), keepdims=False)

    def _set(
        self, tiles: jax.Array, panel: jax.Array, slot: jax.Array | int, tile: jax.Array
    ) -> jax.Array:
        return lax.dynamic_update_index_in_dim(tiles, tile, self.layout.tile(panel, slot), 0)

    def _gather(self, block: jax.Array) -> jax.Array:
        """All rows of a slot, in the matrix's order, from the block that each device owns."""
        return lax.all_gather(block, self.axis, tiled=True)

    def _own(self, rows: jax.Array) -> jax.Array:
        """The block that a device owns of all rows of a slot."""
        return lax.dynamic_slice_in_dim(
            rows, lax.axis_index(self.axis) * self.layout.block, self.layout.block
        )

    def _zeros(self, *shape: int) -> jax.Array:
        """The start of a sum that differs from device to device."""
        return lax.pcast(jnp.zeros(shape, self.dtype), self.axis, to="varying")

    def _number(self, value: float) -> jax.Array:
        return jnp.asarray(value, self.dtype)

    def _with_ridge(
        self, tile: jax.Array, ridge: jax.Array, panel: jax.Array, slot: jax.Array
    ) -> jax.Array:
        """The tile with ridge added to the matrix's diagonal, and its padding overwritten by the identity's."""
        block, width = tile.shape
        first = slot * width + lax.axis_index(self.axis) * block
        rows = (first + jnp.arange(block, dtype=jnp.int32))[:, None]
        columns = (panel * width + jnp.arange(width, dtype=jnp.int32))[None, :]
        inside = (rows < self.layout.n) & (columns < self.layout.n)
        return jnp.where(inside, tile, 0) + jnp.where(
            rows == columns, jnp.where(inside, ridge, 1), 0
        )

    def _solve(self, lower: jax.Array, right: jax.Array, transposed: bool = False) -> jax.Array:
        """x with lower x = right, or lower^T x = right.

        On a TPU in a loop of blocked substitution, since it takes XLA minutes there to compile a wide triangular solve.
        Elsewhere the upper factor is what is solved with: a GPU's solver wants columns in one piece, which rows of the
        lower one are. Given that one, XLA turns around the whole storage that it is a tile of, a second matrix.
        """
        if self.platform != "tpu" or lower.shape[0] <= TPU_BLOCK:
            return solve_triangular(lower.T, right, trans=int(not transposed), lower=False)
        if transposed:
            return self._solve(lower[::-1, ::-1].T, right[::-1])[::-1]
        missing = -lower.shape[0] % TPU_BLOCK
        ones = jnp.arange(lower.shape[0] + missing, dtype=jnp.int32) >= lower.shape[0]
        lower = jnp.pad(lower, (0, missing)) + jnp.diag(ones).astype(lower.dtype)
        right = jnp.pad(right, ((0, missing), (0, 0)))

        def step(j, solved):
            first = j * TPU_BLOCK
            rows = lax.dynamic_slice_in_dim(lower, first, TPU_BLOCK)
            rest = lax.dynamic_slice_in_dim(right, first, TPU_BLOCK) - rows @ solved
            corner = lax.dynamic_slice_in_dim(rows, first, TPU_BLOCK, axis=1)
            return lax.dynamic_update_slice_in_dim(
                solved, solve_triangular(corner, rest, lower=True), first, 0
            )

        solved = lax.fori_loop(0, len(lower) // TPU_BLOCK, step, jnp.zeros_like(right))
        return solved[: len(lower) - missing]

    def _loop(self, first: Any, body: Callable, start: Any, stop: Any = None) -> Any:
        """`lax.fori_loop` to `stop`, or over the slots from `first` on."""
        stop = self.layout.num_panels if stop is None else stop
        return lax.fori_loop(jnp.int32(first), jnp.int32(stop), body, start)

    def _run(
        self,
        name: Any,
        function: Callable,
        *dealt: jax.Array,
        shared: tuple = (),
        donate: bool = False,
    ) -> Any:
        """`function(*dealt, *shared)` on every device, of its parts of `dealt`, jitted once under `name`.

        Products are at full precision. The first array is overwritten if `donate`.
        """
        return self.program(name, function, len(dealt), len(shared), donate)(*dealt, *shared)

    def program(
        self, name: Any, function: Callable, dealt: int, shared: int, donate: bool = False
    ) -> Callable:
        """The program of `_run`, for so many arrays that are dealt and so many that every device has."""

        def precise(*arguments):
            with jax.default_matmul_precision("highest"):
                return function(*arguments)

        specs = (self.dealt,) * dealt + (self.replicated,) * shared
        return self._program(
            name,
            lambda: jax.jit(
                jax.shard_map(precise, mesh=self.mesh, in_specs=specs, out_specs=self.dealt),
                donate_argnums=0 if donate else (),
            ),
        )

    def _program(self, name: Any, make: Callable[[], Callable]) -> Callable:
        if name not in self._programs:
            self._programs[name] = make()
        return self._programs[name]
