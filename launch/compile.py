"""Prints what a row costs on each chip, without the chip: memory, work, traffic and seconds.

    python -m launch.compile --config=configs/table1.py:inception --topology=h100
    python -m launch.compile --config=configs/table2.py:none --topology=v5e:16x16
    python -m launch.compile --config=configs/table3.py:mnist --topology=h200

This compiles the program of the row and prints one JSON line. With --topology it compiles for chips
that need not exist here: GPUs, such as h100, or h100:8 for a node of eight; or TPU chips, such as
v5e:4x4. GPUs need the extra `compile_gpu` (0.7 GB), TPUs the extra `compile_tpu`. Without
--topology it compiles for the devices of this machine that the row would use. It takes a minute to
some minutes on one core.

For a row that trains a network, the line has, per chip:
- The bytes that are kept between steps, such as parameters and optimizer (`state_gb`).
- The bytes of the batch, or of the data set if it stays on the chip. The bytes of activations and
  other temporaries. Whether all of it fits into the memory that JAX takes.
- On a GPU, the number of kernels that a step starts (`launches`), and of convolutions among them.
- The floating-point operations, the bytes read and written, and the bytes that collectives carry.
- `step_ms`, the roofline's estimate of the time of a step. It is the largest of the times for
  operations, for memory and for launches at the chip's rates, plus the time for collectives. It
  assumes that collectives do not overlap with other work. Without the card, XLA cannot time
  kernels, so it may choose others than on the card.

With --largest_batch it doubles the batch per chip and finds the largest one that fits.

For a row of Table 3, the line has the bytes of the matrix and of temporaries, and whether they fit.
It has the largest number of examples that would fit, the operations, and lower bounds on the
seconds of each step. On a TPU it has also what the host must hold and compute.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

from absl import app, flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import cli, experiments
from rethinking.cli import flag_types
from rethinking.errors import InputError, require
from rethinking.experiments import cost, devices, kernel_cost, topologies

_CONFIG = flag_types.define_path(
    "config", None, "configs/FILE.py:ROW. --config.field=value overrides any field."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chips, such as h100, h100:8 or v5e:4x4. Default: the devices that the row would use here.",
)
_LARGEST_BATCH = flags.DEFINE_boolean(
    "largest_batch", False, "Find the largest batch per chip that fits."
)


def main(overrides: Sequence[str]) -> None:
    """Compiles the row that the flags name, and prints what it costs."""
    try:
        config = cli.parse_config([f"--config={_CONFIG.value}", *overrides])
        experiments.check(config)
        mesh = topologies.make_mesh(_TOPOLOGY.value) if _TOPOLOGY.value else devices.mesh(config)
        line = _describe(config, mesh)
    except InputError as error:
        cli.fail(error)
    print(json.dumps(line))


def _describe(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    if config.kind == "kernels":
        require(
            not _LARGEST_BATCH.value,
            "--largest_batch is for rows that train a network. Leave it out: the line of "
            f"{config.row} has largest_n.",
        )
        return kernel_cost.describe(config, mesh)
    if _LARGEST_BATCH.value:
        return cost.largest_batch(config, mesh)
    return cost.describe(config, mesh)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config",)))
