"""Features that devices compute and keep: each device has those of the rows that it owns."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from rethinking.kernels import threads
from rethinking.kernels.backend import Backend
from rethinking.kernels.sharded import ShardedBackend

# How many examples a device computes features of at once, and a thread of the host multiplies.
EXAMPLES = 256
ROWS = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceFeatures:
    """How devices compute features, in blocks of columns.

    Attributes:
        function: by JAX, (examples, *parameters) -> the features [n, f] of a block.
        parameters: a number of blocks to leave out -> the parameters of each other block.
        prepare: examples [n, ...] -> the array that `function` takes. It raises InputError for
            examples that have no such features.
        in_float64: whether `function` computes in float64. By default it does not depend on the
            type of the matrix.
    """

    function: Callable[..., jax.Array]
    parameters: Callable[[int], Iterator[tuple]]
    prepare: Callable[[np.ndarray], np.ndarray]
    in_float64: bool = False

    def blocks(self, backend: ShardedBackend, x: np.ndarray, first: int = 0) -> Iterator["Block"]:
        """Yields the blocks of the features of x, which has a row for each row of the matrix.

        The `first` blocks are left out.
        """
        x = self.prepare(x)
        precise = backend.in_float64()
        if self.in_float64:
            backend = precise
        tiles = backend.tiles
        rows = tiles.distribute(x, x.dtype, padding=None)

        def compute(rows: jax.Array, *parameters: jax.Array) -> jax.Array:
            return lax.map(lambda slot: self._in_parts(slot, parameters), rows)

        for parameters in self.parameters(first):
            features = tiles.run(("features", self.function), compute, rows, shared=parameters)
            yield Block(backend, precise, features)

    def _in_parts(self, examples: jax.Array, parameters: tuple) -> jax.Array:
        """The features of a slot's examples, computed for a few of them at a time."""
        num = examples.shape[0]
        count = math.ceil(num / EXAMPLES)
        size = math.ceil(num / count)
        # The last part is filled up by copies of the last example.
        order = np.minimum(np.arange(count * size), num - 1).reshape(count, size)
        parts = lax.map(lambda part: self.function(part, *parameters), examples[order])
        return parts.reshape(count * size, -1)[:num]


class Block:
    """A block of features [n, f] on the devices: `rows`, as `backend` places them.

    `precise` multiplies in float64: on the devices, or on this host if they have no float64.
    """

    def __init__(self, backend: ShardedBackend, precise: Backend, rows: jax.Array):
        self.rows = rows
        self._backend = backend
        self._precise = precise

    @property
    def shape(self) -> tuple[int, int]:
        """(n, f)"""
        return self._backend.layout.n, self.rows.shape[-1]

    def is_finite(self) -> bool:
        """Whether all features are finite."""
        tiles = self._backend.tiles

        def compute(rows: jax.Array) -> jax.Array:
            return tiles.sum(jnp.isfinite(rows).all().astype(jnp.int32))[None]

        finite = tiles.run("finite features", compute, self.rows)
        return int(np.asarray(finite.addressable_data(0))[0]) == tiles.mesh.size

    def on_host(self) -> np.ndarray:
        """The features, on every process."""
        return self._backend.tiles.collect(self.rows)

    def times(self, weights: Float[np.ndarray, "f c"]) -> Float[np.ndarray, "n c"]:
        """The features times `weights`."""
        if not isinstance(self._precise, ShardedBackend):
            features = self.on_host()
            parts = threads.in_order(lambda rows: features[rows] @ weights, _slices(len(features)))
            return np.concatenate(list(parts))
        tiles = self._precise.tiles

        def compute(rows: jax.Array, weights: jax.Array) -> jax.Array:
            return lax.map(lambda slot: slot.astype(tiles.dtype) @ weights, rows)

        return tiles.collect(tiles.run("features times", compute, self.rows, shared=(weights,)))

    def transposed_times(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "f c"]:
        """The transposed features times v."""
        if not isinstance(self._precise, ShardedBackend):
            features = self.on_host()
            parts = threads.in_order(
                lambda rows: features[rows].T @ v[rows], _slices(len(features))
            )
            return sum(parts)
        tiles = self._precise.tiles

        def compute(rows: jax.Array, v: jax.Array) -> jax.Array:
            def add(slot: jax.Array, total: jax.Array) -> jax.Array:
                return total + rows[slot].astype(tiles.dtype).T @ v[slot]

            zeros = tiles.partial_zeros(rows.shape[2], v.shape[2])
            return tiles.sum(tiles.loop(0, add, zeros))[None]

        product = tiles.run("transposed features", compute, self.rows, tiles.distribute(v))
        return np.asarray(product.addressable_data(0))[0]


def _slices(n: int) -> list[slice]:
    return [slice(first, first + ROWS) for first in range(0, n, ROWS)]
