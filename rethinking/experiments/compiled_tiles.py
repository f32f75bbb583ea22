"""The programs of a kernel system, compiled instead of run, for devices that need not exist."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rethinking.experiments import hlo
from rethinking.experiments.kernel_backend import Size
from rethinking.experiments.kernels import make_kernel
from rethinking.kernels import count
from rethinking.kernels.random_conv import FittedRandomConv
from rethinking.kernels.sharded import ShardedBackend
from rethinking.kernels.tiles import Placed, Tiles


@dataclasses.dataclass(frozen=True)
class Used:
    """What a program uses: bytes on each device, and kernels on a GPU (those of a loop once)."""

    bytes: int
    holds_matrix: bool
    kernels: int


class CompiledTiles(Tiles):
    """Compiles each program that would run. All arrays are only shapes.

    `used` says what each program uses.
    """

    def __init__(self, tiles: Tiles, used: dict[str, Used] | None = None):
        super().__init__(tiles.layout, str(tiles.dtype), tiles.mesh)
        self.used: dict[str, Used] = {} if used is None else used

    def distribute(
        self, rows: Any, dtype: Any = None, padding: float | None = 0.0
    ) -> jax.ShapeDtypeStruct:
        layout = self.layout
        shape = (layout.num_devices * layout.num_panels, layout.block, *rows.shape[1:])
        return self._array(shape, dtype or self.dtype)

    def collect(self, distributed: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.empty((self.layout.n, *distributed.shape[2:]), distributed.dtype)

    def zeros(self) -> jax.ShapeDtypeStruct:
        layout = self.layout
        shape = (layout.num_tiles * layout.num_devices, layout.block, layout.width)
        return self._array(shape, self.dtype)

    def run(
        self, name: Any, function: Any, *sharded: Any, shared: tuple = (), donate: bool = False
    ) -> Any:
        program = self.program(name, function, len(sharded), len(shared), donate)
        lowered = program.lower(*sharded, *shared)
        compiled = lowered.compile()
        used = compiled.memory_analysis()
        size = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
        kernels = 0
        if self.mesh.devices.flat[0].platform == "gpu":
            kernels = hlo.Program(compiled.as_text()).launches().kernels
        holds_matrix = any(array.shape == self.zeros().shape for array in sharded)
        label = name if isinstance(name, str) else name[0]
        self.used[label] = Used(size - used.alias_size_in_bytes, holds_matrix, kernels)
        return jax.tree.map(lambda out: self._array(out.shape, out.dtype), lowered.out_info)

    def _array(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.by_rows)


@dataclasses.dataclass(frozen=True)
class System:
    """What a solve uses: bytes of the matrix, and of all, on each device; and kernels on a GPU.

    `copies_matrix` says that the compiler keeps a second copy of the matrix, as it does for some
    TPUs.
    """

    matrix: int
    total: int
    copies_matrix: bool
    launches: int


def compile_system(backend: ShardedBackend, size: Size, config: ConfigDict) -> System:
    """Compiles the programs that make the matrix, factor it and solve the system.

    Those that need little memory are left out. The backend cannot run programs afterwards.
    """
    tiles = backend.tiles = CompiledTiles(backend.tiles)
    with jax.enable_x64(True):
        storage = tiles.zeros()
        if size.conv is not None:
            _compile_features(backend, storage, size, config)
        else:
            _compile_kernel(backend, storage, size, config)
        panel = (jnp.int32(0),)
        storage, diagonal = tiles.run("update", backend.update, storage, shared=panel, donate=True)
        lower, _ = tiles.run("diagonal", backend.factor_diagonal, diagonal)
        tiles.run("below", backend.solve_below, storage, lower, shared=panel, donate=True)
        backend.solve(storage, np.zeros((size.n, size.num_outputs)))
    matrix = backend.layout.entries * backend.dtype.itemsize
    beside = [used.bytes + matrix * (not used.holds_matrix) for used in tiles.used.values()]
    panels = backend.layout.num_panels
    passes = {
        "update": count.tile_products(backend.layout),
        "diagonal": panels,
        "below": panels * (panels - 1) // 2,
    }
    return System(
        matrix=matrix,
        total=max(beside),
        copies_matrix=tiles.used["update"].bytes > 1.9 * matrix,
        launches=sum(tiles.used[name].kernels * times for name, times in passes.items()),
    )


def _compile_kernel(
    backend: ShardedBackend, storage: Placed, size: Size, config: ConfigDict
) -> None:
    kernel = make_kernel(config.kernel)
    x = np.broadcast_to(0.0, (size.n, size.num_features))  # takes no memory
    backend.gram_panel(storage, kernel, backend.distribute_examples(x), 0.0, 0)
    precise = backend.in_float64()
    if isinstance(precise, ShardedBackend):
        if precise is not backend:
            precise.tiles = CompiledTiles(precise.tiles, backend.tiles.used)
        v = np.zeros((size.n, size.num_outputs))
        precise.gram_product(kernel, precise.distribute_examples(x), 0.0, v)


def _compile_features(
    backend: ShardedBackend, storage: Placed, size: Size, config: ConfigDict
) -> None:
    num = min(config.features.filters_per_block, size.conv.num_filters)
    side, channels = size.conv.patch_size, size.example_shape[-1]
    whitening = np.eye(side * side * channels)
    net = FittedRandomConv(size.conv, whitening, np.zeros((num, side, side, channels)))
    features = dataclasses.replace(net.on_devices(num), prepare=lambda images: images)
    images = np.broadcast_to(np.uint8(0), (size.n, *size.example_shape))
    for block in features.blocks(backend, images):
        backend.add_product(storage, block.rows)
