"""The operations of a network's programs, counted in JAX's output before XLA compiles it."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data import images
from rethinking.data.description import Info
from rethinking.experiments import cost, examples, resident, streamed
from rethinking.experiments.examples import Views
from rethinking.training import evaluate

# Operations that XLA does not merge into others. Each reads its operands and writes its result.
_SEPARATE = {
    *("convolution", "dot", "reduce", "reduce-window", "select-and-scatter"),
    *("gather", "scatter", "concatenate"),
}
# What XLA adds to these on a GPU. The factors are means over the ten programs of CIFAR10 that
# benchmarks/README.md compiled for an H200. Of these, bytes differ by up to 40% and kernels by up
# to 30%.
_MORE_BYTES, _MORE_KERNELS = 1.5, 1.4
# Numbers that an update by SGD with momentum reads and writes for each parameter.
_UPDATE = 5
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*?)\)")


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
    mesh = jax.sharding.Mesh(jax.devices("cpu")[:1], (sharding.DATA_AXIS,))
    trace = _trace_streamed if config.data.stream else _trace_resident
    return trace(config, info, mesh)


def _trace_resident(config: ConfigDict, info: Info, mesh: jax.sharding.Mesh) -> Programs:
    num_train = config.data.num_train or info.num_train
    net, seen = resident.build_network(config, info, num_train, mesh)
    state = jax.eval_shape(net.initialize, jnp.uint32(0))

    def step(state, stored, labels, seed):
        key = jax.random.key(seed)
        view = seen.train(stored, jax.random.split(key, config.batch_size))
        return net.train_step(state, view, labels, key)

    train = net.devices.compile(step, donate_argnums=(0,))
    batch = _stored(config, info, seen, config.batch_size)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    size = min(config.eval_batch_size, num_train)
    test = evaluate.make_evaluate(net.model, net.devices, size, seen.test)
    return Programs(
        _measure(train.trace(state, *batch, seed), state.params),
        _measure(test.trace(state, *_stored(config, info, seen, size)), {}),
        size,
    )


def _stored(
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


def _trace_streamed(config: ConfigDict, info: Info, mesh: jax.sharding.Mesh) -> Programs:
    net = streamed.build_network(config, mesh, cost.IMAGENET_TRAIN, cost.IMAGENET_CLASSES)
    state = jax.eval_shape(net.initialize, jnp.uint32(0))
    size = config.eval_batch_size
    by_rows = NamedSharding(mesh, PartitionSpec(sharding.DATA_AXIS))
    batch = cost.batch_form(size, config.data.image_size, by_rows)
    test = evaluate.make_evaluate_batch(net.model, net.devices, images.center)
    return Programs(
        _measure(cost.trace_step(config, mesh), state.params),
        _measure(test.trace(state, batch), {}),
        size,
    )


def _measure(traced: jax.stages.Traced, trained: dict) -> Program:
    """The work of a program that updates the parameters `trained`, as it is for a GPU."""
    lowered = traced.lower(lowering_platforms=("cuda",))
    found = separate_operations(lowered.as_text(dialect="hlo"))
    params = jax.tree.leaves(trained)
    updated = sum(param.size * param.dtype.itemsize for param in params)
    moved = sum(size for _, size in found) + _UPDATE * updated
    return Program(
        flops=lowered.cost_analysis()["flops"],
        bytes=_MORE_BYTES * moved,
        kernels=_MORE_KERNELS * (len(found) + len(params)),
        convolves=any(operation == "convolution" for operation, _ in found),
    )


def separate_operations(text: str) -> list[tuple[str, int]]:
    """The operations of an HLO text that XLA does not merge into others, and their bytes."""
    sizes: dict[str, int] = {}
    found = []
    for line in text.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, result, operation, operands = match.groups()
        sizes[name] = cost.array_bytes(result)
        if operation in _SEPARATE:
            names = re.findall(r"[\w.-]+", operands)
            found.append((operation, sizes[name] + sum(sizes.get(each, 0) for each in names)))
    return found
