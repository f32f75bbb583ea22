"""Any number of devices and processes: JAX computes with a matrix whose tiles are sharded.

Each device computes on its own tiles. From the others it needs the block row of the current panel,
which it gathers tile by tile. Loops visit exactly the tiles at and below the diagonal, and the
number of the panel is an argument. So a few small programs serve every panel, and they hold only a
few tiles beside the matrix.
"""

import logging
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh
from scipy.linalg import get_lapack_funcs

from rethinking.kernels import layout as layouts
from rethinking.kernels.backend import Backend
from rethinking.kernels.blas import BlasBackend, wide_layout
from rethinking.kernels.gram import Kernel
from rethinking.kernels.layout import Layout
from rethinking.kernels.tiles import Placed, Tiles
from rethinking.kernels.triangular import solve_lower

_LOG = logging.getLogger(__name__)
# The largest number of examples that are predicted at once.
BATCH = 4096


class ShardedBackend(Backend):
    """Stores the matrix as the sharded array of `rethinking.kernels.tiles.Tiles`."""

    def __init__(self, layout: Layout, dtype: str, mesh: Mesh):
        self.layout = layout
        self.dtype = np.dtype(dtype)
        self.mesh = mesh
        self.platform = mesh.devices.flat[0].platform
        self.tiles = Tiles(layout, dtype, mesh)

    def __reduce__(self) -> tuple:
        return _unpickle, (self.layout, str(self.dtype), self.platform)

    def working_bytes(self, cores: int | None = None) -> int:
        # The kernel and the update of a panel hold about four arrays of this size.
        return 4 * self.layout.block * self.layout.width * self.dtype.itemsize

    def like(self, n: int) -> "ShardedBackend":
        return ShardedBackend(layouts.make(n, self.mesh.size), str(self.dtype), self.mesh)

    def in_float64(self) -> Backend:
        if self.dtype == np.float64:
            return self
        if self.platform == "tpu":
            return BlasBackend(wide_layout(self.layout.n), "float64")
        return ShardedBackend(self.layout, "float64", self.mesh)

    def memories(self) -> list[tuple[str, int, int]]:
        process = jax.process_index()
        devices = [device for device in self.mesh.devices.flat if device.process_index == process]
        if self.platform == "cpu":
            return [("this machine", len(devices), psutil.virtual_memory().available)]
        memories = []
        for device in devices:
            stats = device.memory_stats() or {}
            if "bytes_limit" in stats:
                memories.append((str(device), 1, stats["bytes_limit"] - stats["bytes_in_use"]))
        return memories

    def kernel_form(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(kernel, x, z)

    def kernel_values(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        device = self.mesh.local_devices[0]
        placed = [jax.device_put(rows.astype(self.dtype), device) for rows in (x, z)]
        with jax.default_matmul_precision("highest"):
            return np.asarray(jax.jit(kernel)(*placed))

    def distribute(self, rows: np.ndarray) -> Placed:
        return self.tiles.distribute(rows)

    def distribute_examples(self, x: np.ndarray) -> Placed:
        # The kernel is called with the padding too, and it may be undefined for zeros.
        return self.tiles.distribute(x, padding=None)

    def zeros(self) -> Placed:
        return self.tiles.zeros()

    def empty(self) -> Placed:
        return self.tiles.zeros()

    def panel_shape(self, g: int) -> tuple[int, ...]:
        layout = self.layout
        return layout.num_devices, layout.num_panels - g, layout.block, layout.width

    def get_panel(self, storage: Placed, g: int) -> np.ndarray:
        return self.tiles.get_panel(storage, g)

    def put_panel(self, storage: Placed, g: int, panel: np.ndarray) -> Placed:
        return self.tiles.put_panel(storage, g, panel)

    def gram_panel(
        self, storage: Placed, kernel: Kernel, x: Placed, ridge: float, g: int
    ) -> Placed:
        tiles = self.tiles

        def compute(storage, x, ridge, g):
            columns = tiles.gather(x[g])

            def make(slot, storage):
                tile = tiles.with_ridge(kernel(x[slot], columns), ridge, g, slot)
                return tiles.set(storage, g, slot, tile)

            return tiles.loop(g, make, storage)

        shared = (tiles.number(ridge), jnp.int32(g))
        return tiles.run(("gram", kernel), compute, storage, x, shared=shared, donate=True)

    def gram_product(
        self,
        kernel: Kernel,
        x: Placed,
        ridge: float,
        v: np.ndarray,
        before_part: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        before_part()  # one program
        tiles = self.tiles

        def compute(x, v, ridge):
            def multiply_columns(g, product):
                columns, theirs = tiles.gather(x[g]), tiles.gather(v[g])

                def multiply(slot, carry):
                    product, above = carry
                    tile = tiles.with_ridge(kernel(x[slot], columns), ridge, g, slot)
                    # By symmetry a tile below the diagonal is also one above it.
                    above += jnp.where(slot > g, 1, 0).astype(tile.dtype) * (tile.T @ v[slot])
                    return product.at[slot].add(tile @ theirs), above

                start = product, tiles.partial_zeros(*theirs.shape)
                product, above = tiles.loop(g, multiply, start)
                return product.at[g].add(tiles.own(tiles.sum(above)))

            return tiles.loop(0, multiply_columns, tiles.partial_zeros(*v.shape))

        shared = (tiles.number(ridge),)
        name = ("gram product", kernel)
        return tiles.collect(tiles.run(name, compute, x, self.distribute(v), shared=shared))

    def add_product(
        self, storage: Placed, features: np.ndarray | Placed, dtype: str | None = None
    ) -> Placed:
        """The storage plus features features^T. The devices may have the rows already."""
        tiles = self.tiles

        def compute(storage, features):
            features = features.astype(dtype or self.dtype)

            def add_panel(g, storage):
                columns = tiles.gather(features[g]).T

                def add(slot, storage):
                    product = (features[slot] @ columns).astype(self.dtype)
                    tile = tiles.get(storage, g, slot) + product
                    return tiles.set(storage, g, slot, tile)

                return tiles.loop(g, add, storage)

            return tiles.loop(0, add_panel, storage)

        if isinstance(features, np.ndarray):
            # In their own type, so that float32 features take half the memory of float64 ones.
            features = tiles.distribute(features, features.dtype)
        return tiles.run(("add product", dtype), compute, storage, features, donate=True)

    def whole(self, storage: Placed) -> np.ndarray:
        """The symmetric matrix of a storage, in float64 on every process."""
        return self.tiles.symmetric(storage)

    def add_ridge(self, storage: Placed, ridge: float, g: int) -> Placed:
        tiles = self.tiles

        def compute(storage, ridge, g):
            def add(slot, storage):
                tile = tiles.with_ridge(tiles.get(storage, g, slot), ridge, g, slot)
                return tiles.set(storage, g, slot, tile)

            return tiles.loop(g, add, storage)

        shared = (tiles.number(ridge), jnp.int32(g))
        return tiles.run("add ridge", compute, storage, shared=shared, donate=True)

    def factor_panel(self, storage: Placed, g: int) -> tuple[Placed, int]:
        run = self.tiles.run
        panel = (jnp.int32(g),)
        storage, diagonal = run("update", self.update, storage, shared=panel, donate=True)
        lower, failed = run("diagonal", self.factor_diagonal, diagonal)
        storage = run("below", self.solve_below, storage, lower, shared=panel, donate=True)
        if not np.asarray(failed.addressable_data(0)).any():
            return storage, 0
        diagonal = np.array(diagonal.addressable_data(0), order="F")
        if not np.isfinite(diagonal).all():
            return storage, -1
        # JAX does not tell which column failed, and LAPACK does.
        (potrf,) = get_lapack_funcs(("potrf",), (diagonal,))
        return storage, potrf(diagonal, lower=True)[1] or self.layout.width

    def update(self, storage: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """On each device: panel g minus the products of the panels before it, and its diagonal."""
        tiles = self.tiles

        def subtract_panel(k, storage):
            columns = tiles.gather(tiles.get(storage, k, g)).T

            def subtract(slot, storage):
                rest = tiles.get(storage, g, slot) - tiles.get(storage, k, slot) @ columns
                return tiles.set(storage, g, slot, rest)

            return tiles.loop(g, subtract, storage)

        storage = tiles.loop(0, subtract_panel, storage, stop=g)
        return storage, tiles.gather(tiles.get(storage, g, g))

    def factor_diagonal(self, diagonal: jax.Array) -> tuple[jax.Array, jax.Array]:
        """On each device: the factor of a diagonal block, and whether the block has none."""
        lower = jnp.tril(jnp.linalg.cholesky(diagonal, symmetrize_input=False))
        return lower, jnp.isnan(lower).any()[None]

    def solve_below(self, storage: jax.Array, lower: jax.Array, g: jax.Array) -> jax.Array:
        """On each device: panel g of the factor, given the factor of its diagonal block."""
        tiles = self.tiles

        def solve(slot, storage):
            tile = self._solve_lower(lower, tiles.get(storage, g, slot).T).T
            return tiles.set(storage, g, slot, tile)

        return tiles.loop(g + 1, solve, tiles.set(storage, g, g, tiles.own(lower)))

    def solve(self, storage: Placed, b: np.ndarray) -> np.ndarray:
        tiles = self.tiles

        def forward(storage, x, g):
            lower = tiles.gather(tiles.get(storage, g, g))
            solved = self._solve_lower(lower, tiles.gather(x[g]))

            def subtract(slot, x):
                return x.at[slot].add(-tiles.get(storage, g, slot) @ solved)

            return tiles.loop(g + 1, subtract, x.at[g].set(tiles.own(solved)))

        def backward(storage, x, g):
            def multiply(slot, known):
                return known + tiles.get(storage, g, slot).T @ x[slot]

            zeros = tiles.partial_zeros(self.layout.width, x.shape[2])
            known = tiles.sum(tiles.loop(g + 1, multiply, zeros))
            right = tiles.gather(x[g]) - known
            lower = tiles.gather(tiles.get(storage, g, g))
            solved = self._solve_lower(lower, right, transposed=True)
            return x.at[g].set(tiles.own(solved))

        def compute(storage, x):
            last = self.layout.num_panels - 1
            x = tiles.loop(0, lambda g, x: forward(storage, x, g), x)
            return tiles.loop(0, lambda g, x: backward(storage, x, last - g), x)

        return tiles.collect(tiles.run("solve", compute, storage, self.distribute(b)))

    def multiply(self, storage: Placed, v: np.ndarray) -> np.ndarray:
        tiles = self.tiles

        def compute(storage, v):
            def multiply_panel(g, product):
                def inner(slot, total):
                    return total + tiles.get(storage, g, slot).T @ v[slot]

                zeros = tiles.partial_zeros(self.layout.width, v.shape[2])
                total = tiles.sum(tiles.loop(g, inner, zeros))

                def outer(slot, product):
                    return product.at[slot].add(tiles.get(storage, g, slot) @ total)

                return tiles.loop(g, outer, product)

            return tiles.loop(0, multiply_panel, tiles.partial_zeros(*v.shape))

        return tiles.collect(tiles.run("multiply", compute, storage, self.distribute(v)))

    def predict(self, kernel: Kernel, x: Placed, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        tiles = self.tiles

        def compute(x, alpha, z):
            def add(slot, outputs):
                return outputs + kernel(z, x[slot]) @ alpha[slot]

            zeros = tiles.partial_zeros(z.shape[0], alpha.shape[2])
            return tiles.sum(tiles.loop(0, add, zeros))[None]

        alpha = self.distribute(alpha)
        outputs = []
        # Batches of one size, so that one program serves all. Copies of the last example fill up.
        size = math.ceil(len(z) / math.ceil(len(z) / BATCH))
        padded = np.concatenate([z, z[-1:].repeat(-len(z) % size, axis=0)]).astype(self.dtype)
        for batch in np.split(padded, range(size, len(padded), size)):
            parts = tiles.run(("predict", kernel), compute, x, alpha, shared=(batch,))
            outputs.append(np.asarray(parts.addressable_data(0))[0])
        return np.concatenate(outputs)[: len(z)]

    def _solve_lower(
        self, lower: jax.Array, right: jax.Array, transposed: bool = False
    ) -> jax.Array:
        return solve_lower(lower, right, transposed, blocked=self.platform == "tpu")


def _unpickle(layout: Layout, dtype: str, platform: str) -> ShardedBackend:
    """The backend that was pickled, on as many of this program's devices.

    If there are fewer, it uses all of them. Then results differ by rounding.
    """
    try:
        devices = jax.devices(platform)
    except RuntimeError:  # this machine has no such devices
        devices = jax.devices("cpu")
    if len(devices) < layout.num_devices or devices[0].platform != platform:
        _LOG.warning(
            "This system was made on %d %s devices, but this program has %d %s devices. Results "
            "differ by rounding.",
            layout.num_devices,
            platform,
            len(devices),
            devices[0].platform,
        )
    if len(devices) < layout.num_devices:
        layout = layouts.make(layout.n, len(devices))
    mesh = Mesh(np.array(devices[: layout.num_devices]), ("rows",))
    return ShardedBackend(layout, dtype, mesh)
