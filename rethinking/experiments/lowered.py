"""The operations of a network's programs, counted in JAX's output before XLA compiles it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data import images
from rethinking.data.description import Info
from rethinking.data.stream import Batch
from rethinking.experiments import examples, hlo, resident, streamed
from rethinking.experiments.examples import Views
from rethinking.experiments.network import Network
from rethinking.training import evaluate

# What XLA adds to the operations that it does not merge, on a GPU. The factors are means over the
# ten programs of CIFAR10 that benchmarks/README.md compiled for an H200. Of these, bytes differ by
# up to 40% and kernels by up to 30%.
_MORE_BYTES, _MORE_KERNELS = 1.5, 1.4
# Numbers that an update by SGD with momentum reads and writes for each parameter.
_UPDATE = 5


class Program(NamedTuple):
    """What a program does when it is called once."""

    flops: float
    bytes: float  # read and written, an estimate
    kernels: float  # launched on a GPU, an estimate
    convolves: bool


class Programs(NamedTuple):
    """The programs of a network."""

    step: Program  # of training
    evaluation: Program  # of `evaluation_batch` examples
    evaluation_batch: int


def count(config: ConfigDict, info: Info) -> Programs:
    """The programs of a network of `config`, for examples of the set `info`, on one device.

    Nothing is compiled, and neither data nor a GPU is needed. Raises InputError for a network that
    cannot be made.
    """
    mesh = _one_device()
    step = _trace_step(config, info, mesh)
    size = config.eval_batch_size
    if config.data.stream:
        net = _streamed_network(config, info, mesh)
        test = evaluate.make_evaluate_batch(net.model, net.devices, images.center)
        form = (_batch_form(size, config.data.image_size, mesh),)
    else:
        size = min(size, config.data.num_train or info.num_train)
        net, seen = resident_network(config, info, mesh)
        test = evaluate.make_sums(net.model, net.devices, size, seen.test)
        form = stored_form(config, info, seen, size)
    state = state_form(net, mesh)
    return Programs(_measure(step, state.params), _measure(test.trace(state, *form), {}), size)


def step_operations(config: ConfigDict, info: Info, num_devices: int) -> float:
    """The operations of a training step on each of `num_devices` GPUs, which divide the batch."""
    config = config.copy_and_resolve_references()
    config.batch_size //= num_devices
    return _lower(_trace_step(config, info, _one_device())).cost_analysis()["flops"]


def trace_streamed_step(config: ConfigDict, info: Info, mesh: Mesh) -> jax.stages.Traced:
    """The training step of a row that streams its data, for the devices of `mesh`."""
    net = _streamed_network(config, info, mesh)
    train_step = streamed.build_train_step(config, net)
    batch = _batch_form(config.batch_size, config.data.image_size, mesh)
    return train_step.trace(state_form(net, mesh), batch, on_each(mesh, (), jnp.uint32))


def resident_network(config: ConfigDict, info: Info, mesh: Mesh) -> tuple[Network, Views]:
    """The network of a row whose data the devices keep, and how it sees examples."""
    return resident.build_network(config, info, config.data.num_train or info.num_train, mesh)


def state_form(net: Network, mesh: Mesh) -> Any:
    """The form of the state of a training, of which each device has a copy."""
    state = jax.eval_shape(net.initialize, jax.ShapeDtypeStruct((), jnp.uint32))
    return jax.tree.map(lambda array: on_each(mesh, array.shape, array.dtype), state)


def stored_form(
    config: ConfigDict, info: Info, seen: Views, num: int
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The form of `num` examples as `resident.Programs.place` stores them, and of their labels."""
    form = examples.form(config, info)
    shape, dtype = form.shape, form.dtype
    if info.kind == "image":
        shape = info.example_shape if config.augment.crop else shape
        dtype = jnp.uint8
    raw = jax.ShapeDtypeStruct((num, *shape), dtype)
    return jax.eval_shape(seen.store, raw), jax.ShapeDtypeStruct((num,), jnp.int32)


def on_each(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array of which each device has a copy."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def _one_device() -> Mesh:
    return Mesh(jax.devices("cpu")[:1], (sharding.DATA_AXIS,))


def _trace_step(config: ConfigDict, info: Info, mesh: Mesh) -> jax.stages.Traced:
    """A training step, without the loop of an epoch."""
    if config.data.stream:
        return trace_streamed_step(config, info, mesh)
    net, seen = resident_network(config, info, mesh)

    def step(state, stored, labels, seed):
        key = jax.random.key(seed)
        view = seen.train(stored, jax.random.split(key, config.batch_size))
        return net.train_step(state, view, labels, key)

    train = net.devices.compile(step, donate_argnums=(0,))
    batch = stored_form(config, info, seen, config.batch_size)
    return train.trace(state_form(net, mesh), *batch, on_each(mesh, (), jnp.uint32))


def _streamed_network(config: ConfigDict, info: Info, mesh: Mesh) -> Network:
    return streamed.build_network(config, mesh, info.num_train, info.num_classes)


def _batch_form(num: int, side: int, mesh: Mesh) -> Batch:
    """The form of a batch of `num` square images of `side` pixels, divided among the devices."""
    by_rows = NamedSharding(mesh, PartitionSpec(sharding.DATA_AXIS))

    def rows(*shape, dtype):
        return jax.ShapeDtypeStruct((num, *shape), dtype, sharding=by_rows)

    return Batch(
        images=rows(side, side, 3, dtype=jnp.uint8),
        labels=rows(dtype=jnp.int32),
        indices=rows(dtype=jnp.uint32),
        epochs=rows(dtype=jnp.uint32),
        weights=rows(dtype=jnp.float32),
    )


def _measure(traced: jax.stages.Traced, trained: dict) -> Program:
    """The work of a program that updates the parameters `trained`, as it is for a GPU."""
    lowered = _lower(traced)
    found = hlo.separate_operations(lowered.as_text(dialect="hlo"))
    params = jax.tree.leaves(trained)
    updated = sum(param.size * param.dtype.itemsize for param in params)
    moved = sum(size for _, size in found) + _UPDATE * updated
    return Program(
        flops=lowered.cost_analysis()["flops"],
        bytes=_MORE_BYTES * moved,
        kernels=_MORE_KERNELS * (len(found) + len(params)),
        convolves=any(operation == "convolution" for operation, _ in found),
    )


def _lower(traced: jax.stages.Traced) -> jax.stages.Lowered:
    return traced.lower(lowering_platforms=("cuda",))
