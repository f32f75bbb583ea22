"""What a training step costs each chip, read from a program compiled without the chips."""

import re
import time
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking.chips import CHIPS, Chip
from rethinking.errors import require
from rethinking.experiments import compiled, hlo, lowered, work


def describe(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Compiles the row's step; returns its cost per chip and, for a known chip, its `roofline`."""
    start = time.perf_counter()
    step = compiled.compile_step(config, mesh)
    seconds = time.perf_counter() - start
    memory, text = step.compiled.memory_analysis(), step.compiled.as_text()
    sent = collective_bytes(text)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    device = mesh.devices.flat[0]
    line = {
        "row": config.row,
        "chips": mesh.size,
        "chip": device.device_kind,
        "batch": config.batch_size,
        "dtype": config.dtype,
        "compile_seconds": round(seconds, 1),
        "state_gb": round((held - step.examples_bytes) / 1e9, 4),
        "data_gb" if step.loops else "batch_gb": round(step.examples_bytes / 1e9, 4),
        "temporary_gb": round(memory.temp_size_in_bytes / 1e9, 4),
        "total_gb": round(total / 1e9, 4),
    }
    kernels = 0
    if device.platform == "gpu":
        program = hlo.Program(text)
        launches = program.launches_of_largest_loop() if step.loops else program.launches()
        kernels, convolutions = launches.kernels, launches.convolutions
        line |= {"launches": kernels, "convolutions": convolutions}
        # XLA's count for a compiled program leaves out the products of cuDNN and cuBLAS.
        operations = lowered.step_operations(config, work.describe(config), mesh.size)
        costs = {"flops": operations, "bytes accessed": launches.bytes}
    else:
        costs = step.compiled.cost_analysis()
    line |= {
        "tflop": round(costs["flops"] / 1e12, 4),
        "accessed_gb": round(costs["bytes accessed"] / 1e9, 4),
        "collectives_gb": round(sent / 1e9, 4),
    }
    if line["chip"] in CHIPS:
        chip = CHIPS[line["chip"]]
        line |= roofline(
            chip, config.batch_size, mesh.size, costs, sent, total, config.dtype, kernels
        )
        line["epoch_seconds"] = round(step.per_epoch * line["step_ms"] / 1e3, 2)
    return line


def roofline(
    chip: Chip,
    batch_size: int,
    chips: int,
    program: dict,
    sent: float | int,
    total: float | int,
    dtype: str = "bfloat16",
    launches: int = 0,
) -> dict[str, Any]:
    """Whether a step fits into a chip's memory, and lower bounds on its time.

    Args:
        chip: its memory and rates.
        batch_size: over all chips.
        chips: their number.
        program: the compiled program's "flops" and "bytes accessed", per chip.
        sent: bytes that the collectives sum.
        total: bytes of memory that the step needs.
        dtype: in which the network computes.
        launches: the number of kernels, on a chip that starts each by itself.
    """
    bounds = chip.bounds(dtype, program["flops"], program["bytes accessed"], launches)
    # To sum a byte over P chips, a ring passes it on 2 (P - 1) / P times.
    collectives = 2 * (chips - 1) / chips * sent / chip.links
    step = max(bounds) + collectives
    line = {
        "memory_gb": chip.memory * chip.usable / 1e9,
        "fits": total < chip.memory * chip.usable,
        "work_ms": round(1e3 * bounds.work, 2),
        "memory_ms": round(1e3 * bounds.memory, 2),
        "collectives_ms": round(1e3 * collectives, 2),
        "step_ms": round(1e3 * step, 2),
        "images_per_second": round(batch_size / step),
        "collectives_share": round(collectives / step, 3),
    }
    if launches:
        line["launches_ms"] = round(1e3 * bounds.launches, 2)
    return line


def collective_bytes(text: str) -> int:
    """Bytes of the results of all collectives in a compiled program's text."""
    collectives = re.findall(
        r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"
        r"(?:-start)?\(",
        text,
    )
    return sum(hlo.size(result) for result in collectives)


def largest_batch(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """The line of `describe` for the largest batch, a power of two per chip, that fits.

    It changes `config.batch_size`. Raises InputError if the chip's memory is not known.
    """
    kind = mesh.devices.flat[0].device_kind
    require(
        kind in CHIPS,
        f"the memory of {kind!r} is not known here. Known chips are: {', '.join(CHIPS)}.",
    )
    # From the row's own batch, upwards if it fits, else downwards.
    per_chip = 1 << max(3, (config.batch_size // mesh.size).bit_length() - 1)
    line = _describe_if_it_fits(config, mesh, per_chip)
    if line is None:
        while line is None and per_chip > 1:
            per_chip //= 2
            line = _describe_if_it_fits(config, mesh, per_chip)
        return line or {"row": config.row, "fits": False, "batch": config.batch_size}
    while True:
        per_chip *= 2
        larger = _describe_if_it_fits(config, mesh, per_chip)
        if larger is None:
            return line
        line = larger


def _describe_if_it_fits(config: ConfigDict, mesh: Mesh, per_chip: int) -> dict[str, Any] | None:
    """The line of `describe`; None if the step does not fit, or the set has fewer examples."""
    config.batch_size = per_chip * mesh.size
    if config.batch_size > (config.data.num_train or work.describe(config).num_train):
        return None
    try:
        line = describe(config, mesh)
    except Exception as error:  # The compiler has an error type of its own.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    return line if line["fits"] else None
