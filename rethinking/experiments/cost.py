"""What a training step takes of each chip: compiled for chips that need not be there, and read off the program."""

import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data.stream import Batch
from rethinking.errors import InputError
from rethinking.experiments import streamed

# ILSVRC 2012, whose size and classes are known without having it.
IMAGENET_TRAIN, IMAGENET_CLASSES = 1_281_167, 1000


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's published rates."""

    memory: float  # bytes
    flops: float  # bfloat16 operations a second
    bandwidth: float  # bytes a second, to and from its memory
    links: float  # bytes a second that it sends to other chips, over all its links


# Google Cloud's documentation of its TPU versions; NVIDIA's data sheets of the A100, H100 and H200 (dense, NVLink).
CHIPS = {
    "TPU v4": Chip(32e9, 275e12, 1228e9, 300e9),
    "TPU v5 lite": Chip(16e9, 197e12, 819e9, 200e9),
    "TPU v5": Chip(95e9, 459e12, 2765e9, 600e9),
    "TPU v6 lite": Chip(32e9, 918e12, 1640e9, 448e9),
    "NVIDIA A100-SXM4-80GB": Chip(80e9, 312e12, 2039e9, 300e9),
    "NVIDIA H100 80GB HBM3": Chip(80e9, 989e12, 3350e9, 450e9),
    "NVIDIA H200": Chip(141e9, 989e12, 4800e9, 450e9),
}


def make_mesh(topology: str | None) -> Mesh:
    """A mesh over the chips of `topology`, or over this machine's devices; InputError if there is no such topology."""
    if topology is None:
        return sharding.data_mesh(0)
    try:
        devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    except Exception as error:  # the compiler's own, of many kinds
        raise InputError(
            f"topology {topology}: {str(error).splitlines()[0]}. Topologies are written like v5e:4x4, and need the "
            "package libtpu (pip install libtpu) and the environment TPU_SKIP_MDS_QUERY=1."
        ) from error
    return Mesh(np.array(devices), (sharding.DATA_AXIS,))


def compile_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Compiled:
    """The compiled training step of a streamed row on ImageNet, for the devices of `mesh`."""
    if not config.data.stream:
        raise InputError(
            f"{config.row}: only rows that stream their data (configs/table2.py) are compiled here"
        )
    programs = streamed.build(config, mesh, IMAGENET_TRAIN, IMAGENET_CLASSES)
    replicated, split = (
        NamedSharding(mesh, PartitionSpec()),
        NamedSharding(mesh, PartitionSpec(sharding.DATA_AXIS)),
    )

    def on_mesh(shape):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=replicated)

    def rows(*shape, dtype):
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=split)

    size = config.data.image_size
    batch = Batch(
        rows(size, size, 3, dtype=jnp.uint8),
        rows(dtype=jnp.int32),
        rows(dtype=jnp.uint32),
        rows(dtype=jnp.uint32),
        rows(dtype=jnp.float32),
    )
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated)
    state = jax.tree.map(on_mesh, jax.eval_shape(programs.initialize, seed))
    return programs.train_step.lower(state, batch, seed).compile()


def describe(config: ConfigDict, mesh: Mesh) -> dict:
    """Compiles the row's step, and says what it takes of each chip."""
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
    chip = CHIPS.get(line["chip"])
    return line | (
        roofline(chip, config.batch_size, mesh.size, program, sent, total) if chip else {}
    )


def roofline(
    chip: Chip, batch_size: int, chips: int, program: dict, sent: float | int, total: float | int
) -> dict:
    """Whether a step fits, and bounds on its time."""
    work, memory = program["flops"] / chip.flops, program["bytes accessed"] / chip.bandwidth
    # A ring passes each byte that is summed over P chips 2 (P - 1) / P times.
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
    sizes = {
        "f32": 4,
        "bf16": 2,
        "f16": 2,
        "s32": 4,
        "u32": 4,
        "pred": 1,
        "f64": 8,
        "u8": 1,
        "s8": 1,
    }
    total = 0
    for result in re.findall(
        r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"
        r"(?:-start)?\(",
        text,
    ):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            total += sizes.get(dtype, 4) * int(
                np.prod([int(side) for side in shape.split(",") if side])
            )
    return total


def largest_batch(config: ConfigDict, mesh: Mesh) -> dict:
    """The line of the largest batch, a power of two per chip, that fits; InputError for chips of unknown memory."""
    if (kind := mesh.devices.flat[0].device_kind) not in CHIPS:
        raise InputError(
            f"what fits into the memory of {kind!r} is not known here, but of: {', '.join(CHIPS)}"
        )
    best, per_chip = None, 8
    while True:
        config.batch_size = per_chip * mesh.size
        try:
            line = describe(config, mesh)
        except (
            Exception
        ) as error:  # the compiler refuses what does not fit, with an error of its own
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            line = {"fits": False}
        if not line.get("fits", False):
            return best or {"row": config.row, "fits": False, "batch": config.batch_size}
        best, per_chip = line, 2 * per_chip
