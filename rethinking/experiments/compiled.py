"""The training step of a row, compiled for chips that need not exist here, without its data."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking.data.description import Info
from rethinking.errors import require
from rethinking.experiments import lowered, work
from rethinking.training import steps


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled training step: a program of its own, or a pass of the loop of an epoch.

    Attributes:
        compiled: the program.
        per_epoch: the number of steps of an epoch.
        loops: whether the program is a whole epoch.
        examples_bytes: bytes of the examples on each chip: of a batch, or of the whole set.
    """

    compiled: jax.stages.Compiled
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
    info = work.describe(config)
    return (_streamed_step if config.data.stream else _resident_step)(config, info, mesh)


def _streamed_step(config: ConfigDict, info: Info, mesh: Mesh) -> Step:
    return Step(
        _compile(lowered.trace_streamed_step(config, info, mesh), mesh),
        info.num_train / config.batch_size,
        loops=False,
        examples_bytes=config.batch_size // mesh.size * config.data.image_size**2 * 3,
    )


def _resident_step(config: ConfigDict, info: Info, mesh: Mesh) -> Step:
    num = config.data.num_train or info.num_train
    net, seen = lowered.resident_network(config, info, mesh)
    train_epoch = steps.make_train_epoch(net.train_step, net.devices, config.batch_size, seen.train)
    stored = lowered.stored_form(config, info, seen, num)[0]
    scalar = lowered.on_each(mesh, (), jnp.uint32)
    traced = train_epoch.trace(
        lowered.state_form(net, mesh),
        lowered.on_each(mesh, stored.shape, stored.dtype),
        lowered.on_each(mesh, (num,), jnp.int32),
        lowered.on_each(mesh, (num,), jnp.uint32),
        scalar,
        scalar,
    )
    return Step(
        _compile(traced, mesh),
        num // config.batch_size,
        loops=True,
        # with the label and the index of each example
        examples_bytes=stored.size * stored.dtype.itemsize + 8 * num,
    )


def _compile(traced: jax.stages.Traced, mesh: Mesh) -> jax.stages.Compiled:
    program = traced.lower()
    try:
        return program.compile()
    except jax.errors.JaxRuntimeError as error:
        # Without a card to tune on, XLA can choose a Triton kernel that it cannot generate.
        if mesh.devices.flat[0].platform != "gpu" or "tile sizes" not in str(error):
            raise
        return program.compile({"xla_gpu_enable_triton_gemm": False})
