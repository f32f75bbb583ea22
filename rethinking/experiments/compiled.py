"""The training step of a row, compiled for chips that need not exist here, without its data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data.source import Info
from rethinking.data.stream import Batch
from rethinking.errors import require
from rethinking.experiments import data_set, examples, resident, streamed, work
from rethinking.experiments.network import Network

# Rows are compiled for the sizes of these sets, which need not be prepared. ILSVRC 2012 is that of
# rows that stream their data.
IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000
SETS = {
    "cifar10": Info(50_000, 10_000, (32, 32, 3), 10),
    "mnist": Info(60_000, 10_000, (28, 28, 1), 10),
}


def describe_set(config: ConfigDict) -> Info:
    """The sizes of a row's data set. Raises InputError for an unknown one that is not prepared."""
    if config.data.name in SETS:
        return data_set.evaluation(config).held_out(SETS[config.data.name])
    return data_set.describe(config)


def num_train(config: ConfigDict) -> int:
    """The number of training examples of a row."""
    if config.data.stream:
        return IMAGENET_TRAIN
    return config.data.num_train or describe_set(config).num_train


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled training step: a program of its own, or a pass of the loop of an epoch.

    Attributes:
        compiled: the program.
        operations: multiplications and additions of its products and convolutions, on each chip.
        per_epoch: the number of steps of an epoch.
        loops: whether the program is a whole epoch.
        examples_bytes: bytes of the examples on each chip: of a batch, or of the whole set.
    """

    compiled: jax.stages.Compiled
    operations: int
    per_epoch: float | int
    loops: bool
    examples_bytes: int


def compile_step(config: ConfigDict, mesh: Mesh) -> Step:
    """The training step of a row, for the devices of `mesh`.

    Raises InputError for an experiment that does not train, and for a network or a batch size that
    cannot work.
    """
    require(
        config.kind == "training",
        f"{config.row} does not train a network, and has no step to compile. Choose a row of "
        "configs/table1.py, configs/table2.py or configs/table3.py.",
    )
    return _streamed_step(config, mesh) if config.data.stream else _resident_step(config, mesh)


def _streamed_step(config: ConfigDict, mesh: Mesh) -> Step:
    net = streamed.build_network(config, mesh, IMAGENET_TRAIN, IMAGENET_CLASSES)
    train_step = streamed.build_train_step(config, net)
    by_rows = NamedSharding(mesh, PartitionSpec(sharding.DATA_AXIS))

    def rows(*shape, dtype):
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=by_rows)

    size = config.data.image_size
    batch = Batch(
        images=rows(size, size, 3, dtype=jnp.uint8),
        labels=rows(dtype=jnp.int32),
        indices=rows(dtype=jnp.uint32),
        epochs=rows(dtype=jnp.uint32),
        weights=rows(dtype=jnp.float32),
    )
    traced = train_step.trace(_state(net, mesh), batch, _on_each(mesh, (), jnp.uint32))
    return Step(
        _compile(traced, mesh),
        _operations(traced, mesh),
        IMAGENET_TRAIN / config.batch_size,
        loops=False,
        examples_bytes=config.batch_size // mesh.size * size**2 * 3,
    )


def _resident_step(config: ConfigDict, mesh: Mesh) -> Step:
    info, num = describe_set(config), num_train(config)
    net = resident.build_network(config, mesh, info, num)
    train_epoch = resident.build_train_epoch(config, net, info, scan=True)
    raw = jax.ShapeDtypeStruct((num, *info.example_shape), info.example_dtype)
    stored = jax.eval_shape(examples.views(config, info.kind).store, raw)
    per_epoch = num // config.batch_size
    scalar = _on_each(mesh, (), jnp.uint32)
    traced = train_epoch.trace(
        _state(net, mesh),
        _on_each(mesh, stored.shape, stored.dtype),
        _on_each(mesh, (num,), jnp.int32),
        _on_each(mesh, (num,), jnp.uint32),
        scalar,
        scalar,
    )
    return Step(
        _compile(traced, mesh),
        _operations(traced, mesh) // per_epoch,
        per_epoch,
        loops=True,
        # with the label and the index of each example
        examples_bytes=stored.size * stored.dtype.itemsize + 8 * num,
    )


def _compile(traced: jax.stages.Traced, mesh: Mesh) -> jax.stages.Compiled:
    lowered = traced.lower()
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        # Without a card to tune on, XLA can choose a Triton kernel that it cannot generate.
        if mesh.devices.flat[0].platform != "gpu" or "tile sizes" not in str(error):
            raise
        return lowered.compile({"xla_gpu_enable_triton_gemm": False})


def _operations(traced: jax.stages.Traced, mesh: Mesh) -> int:
    platform = mesh.devices.flat[0].platform
    return work.count(traced.jaxpr.jaxpr, "cuda" if platform == "gpu" else platform)


def _state(net: Network, mesh: Mesh) -> Any:
    state = jax.eval_shape(net.initialize, jax.ShapeDtypeStruct((), jnp.uint32))
    return jax.tree.map(lambda array: _on_each(mesh, array.shape, array.dtype), state)


def _on_each(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array of which each device has a copy."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))
