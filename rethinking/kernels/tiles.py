"""A symmetric matrix as tiles on a mesh of devices, and programs that use the tiles."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rethinking import sharding
from rethinking.kernels.layout import Layout


class Tiles:
    """Places arrays on the devices of a mesh, and runs programs on every device's part of them.

    A storage of the matrix is one array [tiles of all devices, block, width]. An array with a row
    for each row of the matrix becomes [slots of all devices, block, ...]. Both are sharded along
    their first axis.

    The methods from `get` on are for use within a program. There an array is one device's part.
    """

    def __init__(self, layout: Layout, dtype: str, mesh: Mesh):
        self.layout = layout
        self.dtype = np.dtype(dtype)
        self.mesh = mesh
        (self.axis,) = mesh.axis_names
        self.sharded = PartitionSpec(self.axis)
        self.replicated = PartitionSpec()
        self._programs: dict[Any, Callable] = {}

    @property
    def by_rows(self) -> NamedSharding:
        """How arrays are sharded: along their first axis."""
        return NamedSharding(self.mesh, self.sharded)

    def distribute(
        self, rows: np.ndarray, dtype: Any = None, padding: float | None = 0.0
    ) -> jax.Array:
        """`rows`, one for each row of the matrix, on the devices that own the matrix's rows.

        `padding` fills the rows that pad the matrix; None repeats the last row there.
        """
        layout = self.layout
        dtype = dtype or self.dtype
        order = layout.order.reshape(-1, layout.block)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            mine = order[index[0]]
            values = rows[np.minimum(mine, layout.n - 1)].astype(dtype, copy=False)
            if padding is not None:
                values[mine >= layout.n] = padding
            return values

        shape = (*order.shape, *rows.shape[1:])
        return jax.make_array_from_callback(shape, self.by_rows, part)

    def collect(self, distributed: jax.Array) -> np.ndarray:
        """The rows that `distribute` placed, in the matrix's order, on every process."""
        layout = self.layout
        rows = self._everywhere(distributed)
        whole = np.empty((layout.size, *rows.shape[2:]), rows.dtype)
        whole[layout.order] = rows.reshape(whole.shape)
        return whole[: layout.n]

    def symmetric(self, storage: jax.Array) -> np.ndarray:
        """The symmetric matrix whose lower half a storage holds, in float64 on every process."""
        layout = self.layout
        tiles = self._everywhere(storage).reshape(layout.num_devices, -1, *storage.shape[1:])
        order = layout.order.reshape(layout.num_devices, layout.num_panels, layout.block)
        whole = np.zeros((layout.size, layout.size))
        for g in range(layout.num_panels):
            columns = slice(g * layout.width, (g + 1) * layout.width)
            for slot in range(g, layout.num_panels):
                for device in range(layout.num_devices):
                    whole[order[device, slot], columns] = tiles[device, layout.tile(g, slot)]
        lower = np.tril(whole[: layout.n, : layout.n])
        return lower + np.tril(lower, -1).T

    def _everywhere(self, sharded: jax.Array) -> np.ndarray:
        """A sharded array as a whole, on every process."""
        everywhere = NamedSharding(self.mesh, self.replicated)
        replicate = self._cached("collect", lambda: jax.jit(lambda x: x, out_shardings=everywhere))
        return np.asarray(replicate(sharded).addressable_data(0))

    def zeros(self) -> jax.Array:
        """A storage filled with zeros."""
        layout = self.layout
        shape = (layout.num_tiles * layout.num_devices, layout.block, layout.width)
        make = functools.partial(jnp.zeros, shape, self.dtype)
        return self._cached("zeros", lambda: jax.jit(make, out_shardings=self.by_rows))()

    def get_panel(self, storage: jax.Array, g: int) -> np.ndarray:
        """The tiles of a panel of each device of this process: [devices, tiles, block, width]."""
        first = self.layout.tile(g, g)
        tiles = slice(first, first + self.layout.num_panels - g)
        shards = sorted(storage.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.stack([np.asarray(shard.data[tiles]) for shard in shards])

    def put_panel(self, storage: jax.Array, g: int, panel: np.ndarray) -> jax.Array:
        """The storage with the tiles that `get_panel` gave. All devices must be of this process."""

        def put(storage, tile, g, slot):
            return self.set(storage, g, slot, tile[0])

        for slot in range(g, self.layout.num_panels):
            tile = jax.device_put(panel[:, slot - g], self.by_rows)
            shared = (jnp.int32(g), jnp.int32(slot))
            storage = self.run("put", put, storage, tile, shared=shared, donate=True)
        return storage

    def number(self, value: float) -> jax.Array:
        """`value` in the matrix's type, as an argument of a program."""
        return jnp.asarray(value, self.dtype)

    def run(
        self,
        name: Any,
        function: Callable,
        *sharded: jax.Array,
        shared: tuple = (),
        donate: bool = False,
    ) -> Any:
        """`function(*sharded, *shared)` on every device, each with its own part of `sharded`.

        The function is compiled once for each `name`. With `donate` the first array is overwritten.
        """
        return self.program(name, function, len(sharded), len(shared), donate)(*sharded, *shared)

    def program(
        self, name: Any, function: Callable, num_sharded: int, num_shared: int, donate: bool = False
    ) -> Callable:
        """The compiled program that `run` calls. Its matrix products have full precision."""

        def precise(*arguments):
            with jax.default_matmul_precision("highest"):
                return function(*arguments)

        specs = (self.sharded,) * num_sharded + (self.replicated,) * num_shared

        def compile_() -> Callable:
            mapped = jax.shard_map(precise, mesh=self.mesh, in_specs=specs, out_specs=self.sharded)
            return jax.jit(mapped, donate_argnums=0 if donate else ())

        return self._cached(name, compile_)

    def _cached(self, name: Any, make: Callable[[], Callable]) -> Callable:
        if name not in self._programs:
            self._programs[name] = make()
        return self._programs[name]

    def get(self, storage: jax.Array, panel: jax.Array | int, slot: jax.Array | int) -> jax.Array:
        """The tile of a panel and a slot."""
        return lax.dynamic_index_in_dim(storage, self.layout.tile(panel, slot), keepdims=False)

    def set(
        self, storage: jax.Array, panel: jax.Array, slot: jax.Array | int, tile: jax.Array
    ) -> jax.Array:
        """The storage with another tile at a panel and a slot."""
        return lax.dynamic_update_index_in_dim(storage, tile, self.layout.tile(panel, slot), 0)

    def gather(self, block: jax.Array) -> jax.Array:
        """All rows of a slot, in the matrix's order, from the block of each device."""
        return lax.all_gather(block, self.axis, tiled=True)

    def own(self, rows: jax.Array) -> jax.Array:
        """This device's block of all rows of a slot."""
        block = self.layout.block
        return lax.dynamic_slice_in_dim(rows, lax.axis_index(self.axis) * block, block)

    def sum(self, partial: jax.Array) -> jax.Array:
        """The sum over the devices."""
        return lax.psum(partial, self.axis)

    def partial_zeros(self, *shape: int) -> jax.Array:
        """Zeros, to begin a sum that differs between the devices."""
        return sharding.varying(jnp.zeros(shape, self.dtype), self.axis)

    def with_ridge(
        self, tile: jax.Array, ridge: jax.Array, panel: jax.Array, slot: jax.Array
    ) -> jax.Array:
        """The tile with ridge added to the matrix's diagonal. Padding becomes the identity's."""
        block, width = tile.shape
        first = slot * width + lax.axis_index(self.axis) * block
        rows = (first + jnp.arange(block, dtype=jnp.int32))[:, None]
        columns = (panel * width + jnp.arange(width, dtype=jnp.int32))[None, :]
        inside = (rows < self.layout.n) & (columns < self.layout.n)
        unpadded = jnp.where(inside, tile, 0)
        on_diagonal = rows == columns
        return unpadded + jnp.where(on_diagonal, jnp.where(inside, ridge, 1), 0)

    def loop(self, first: Any, body: Callable, start: Any, stop: Any = None) -> Any:
        """`lax.fori_loop` from `first` to `stop`, by default to the last slot."""
        stop = self.layout.num_panels if stop is None else stop
        return lax.fori_loop(jnp.int32(first), jnp.int32(stop), body, start)
