"""What a training step costs each chip, read from a program compiled without the chips."""

import math
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data.stream import Batch
from rethinking.errors import InputError, require
from rethinking.experiments import streamed
from rethinking.experiments.chips import CHIPS, Chip

# ILSVRC 2012. The step is compiled for its size and its classes, without the data.
IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000
# Bytes of a number, by its type in XLA's text.
NUMBER_BYTES = {
    "f64": 8,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "bf16": 2,
    "f16": 2,
    "u8": 1,
    "s8": 1,
    "pred": 1,
}


def make_mesh(topology: str | None) -> Mesh:
    """A mesh over the chips of `topology`, or over this machine's devices if that is None.

    Raises InputError if there is no such topology.
    """
    if topology is None:
        return sharding.device_mesh(0)
    try:
        devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    except Exception as error:  # The compiler raises errors of many kinds.
        raise InputError(
            f"topology {topology}: {str(error).splitlines()[0]}. "
            "Write topologies like v5e:4x4. They need the package libtpu (pip install libtpu) "
            "and the environment TPU_SKIP_MDS_QUERY=1."
        ) from error
    return Mesh(np.array(devices), (sharding.DATA_AXIS,))


def compile_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Compiled:
    """The compiled training step of a streamed row on ImageNet, for the devices of `mesh`."""
    return trace_step(config, mesh).lower().compile()


def trace_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Traced:
    """The training step of a streamed row on ImageNet, for the devices of `mesh`."""
    require(
        config.data.stream,
        f"{config.row} does not stream its data, and only rows that do (configs/table2.py) are "
        "compiled here.",
    )
    net = streamed.build_network(config, mesh, IMAGENET_TRAIN, IMAGENET_CLASSES)
    train_step = streamed.build_train_step(config, net)
    replicated = NamedSharding(mesh, PartitionSpec())
    by_rows = NamedSharding(mesh, PartitionSpec(sharding.DATA_AXIS))

    def on_mesh(array):
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=replicated)

    batch = batch_form(config.batch_size, config.data.image_size, by_rows)
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated)
    state = jax.tree.map(on_mesh, jax.eval_shape(net.initialize, seed))
    return train_step.trace(state, batch, seed)


def batch_form(num: int, side: int, placed: NamedSharding) -> Batch:
    """The form of a batch of `num` square images of `side` pixels, and where it is placed."""

    def rows(*shape, dtype):
        return jax.ShapeDtypeStruct((num, *shape), dtype, sharding=placed)

    return Batch(
        images=rows(side, side, 3, dtype=jnp.uint8),
        labels=rows(dtype=jnp.int32),
        indices=rows(dtype=jnp.uint32),
        epochs=rows(dtype=jnp.uint32),
        weights=rows(dtype=jnp.float32),
    )


def describe(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Compiles the row's step; returns its cost per chip and, for a known chip, its `roofline`."""
    start = time.perf_counter()
    compiled = compile_step(config, mesh)
    seconds = time.perf_counter() - start
    memory, program = compiled.memory_analysis(), compiled.cost_analysis()
    sent = collective_bytes(compiled.as_text())
    images = config.batch_size // mesh.size * config.data.image_size**2 * 3
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    line = {
        "row": config.row,
        "chips": mesh.size,
        "chip": mesh.devices.flat[0].device_kind,
        "batch": config.batch_size,
        "dtype": config.dtype,
        "compile_seconds": round(seconds, 1),
        "state_gb": round((held - images) / 1e9, 4),
        "batch_gb": round(images / 1e9, 4),
        "temporary_gb": round(memory.temp_size_in_bytes / 1e9, 4),
        "total_gb": round(total / 1e9, 4),
        "tflop": round(program["flops"] / 1e12, 4),
        "accessed_gb": round(program["bytes accessed"] / 1e9, 4),
        "collectives_gb": round(sent / 1e9, 4),
    }
    if line["chip"] in CHIPS:
        chip = CHIPS[line["chip"]]
        line |= roofline(chip, config.batch_size, mesh.size, program, sent, total)
    return line


def roofline(
    chip: Chip, batch_size: int, chips: int, program: dict, sent: float | int, total: float | int
) -> dict[str, Any]:
    """Whether a step fits into a chip's memory, and lower bounds on its time.

    Args:
        chip: its memory and rates.
        batch_size: over all chips.
        chips: their number.
        program: the compiled program's "flops" and "bytes accessed", per chip.
        sent: bytes that the collectives sum.
        total: bytes of memory that the step needs.
    """
    work = program["flops"] / chip.flops
    memory = program["bytes accessed"] / chip.bandwidth
    # To sum a byte over P chips, a ring passes it on 2 (P - 1) / P times.
    collectives = 2 * (chips - 1) / chips * sent / chip.links
    step = max(work, memory) + collectives
    return {
        "memory_gb": chip.memory / 1e9,
        "fits": total < chip.memory,
        "work_ms": round(1e3 * work, 2),
        "memory_ms": round(1e3 * memory, 2),
        "collectives_ms": round(1e3 * collectives, 2),
        "step_ms": round(1e3 * step, 2),
        "images_per_second": round(batch_size / step),
        "collectives_share": round(collectives / step, 3),
    }


def collective_bytes(text: str) -> int:
    """Bytes of the results of all collectives in a compiled program's text."""
    collectives = re.findall(
        r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"
        r"(?:-start)?\(",
        text,
    )
    return sum(array_bytes(result) for result in collectives)


def array_bytes(text: str) -> int:
    """Bytes of the arrays in a text such as "(bf16[10]{0}, f32[3,4])"."""
    total = 0
    for dtype, shape in re.findall(r"\b(\w+)\[([\d,]*)\]", text):
        sides = [int(side) for side in shape.split(",") if side]
        total += NUMBER_BYTES.get(dtype, 4) * math.prod(sides)
    return total


def largest_batch(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """The line of `describe` for the largest batch, a power of two per chip, that fits.

    Raises InputError if the chip's memory is not known.
    """
    kind = mesh.devices.flat[0].device_kind
    require(
        kind in CHIPS,
        f"the memory of {kind!r} is not known here. Known chips are: {', '.join(CHIPS)}.",
    )
    best, per_chip = None, 8
    while True:
        config.batch_size = per_chip * mesh.size
        line = _describe_if_it_compiles(config, mesh)
        if line is None or not line["fits"]:
            return best or {"row": config.row, "fits": False, "batch": config.batch_size}
        best, per_chip = line, 2 * per_chip


def _describe_if_it_compiles(config: ConfigDict, mesh: Mesh) -> dict[str, Any] | None:
    """The line of `describe`; None if the compiler refuses the step because it does not fit."""
    try:
        return describe(config, mesh)
    except Exception as error:  # The compiler has an error type of its own.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
