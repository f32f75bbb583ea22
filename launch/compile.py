"""Prints what a row of Table 2 costs on each chip, without the chip: memory, work and traffic.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python -m launch.compile \\
        --config=configs/table2.py:none --topology=v5e:16x16

This compiles the row's training step and prints one JSON line. With --topology it compiles for
TPU chips that need not exist here; that takes the package libtpu. Without --topology it compiles
for the devices of this machine. It takes some minutes on one core.

The line has, per chip:
- the bytes that are kept between steps, such as parameters and optimizer (`state_gb`),
- the bytes of the batch, and of activations and other temporaries, and whether all of it fits,
- the floating-point operations, the bytes read and written, and the bytes that collectives carry,
- `step_ms`, the roofline's estimate of the time of a step. It is the larger of the times for
  operations and for memory at the chip's rates, plus the time for collectives. It assumes that
  collectives do not overlap with other work.

With --largest_batch it doubles the batch per chip and finds the largest one that fits.
"""

import functools
import json
from collections.abc import Sequence

from absl import app, flags

from rethinking import cli, experiments
from rethinking.cli import flag_types
from rethinking.errors import InputError
from rethinking.experiments import cost

_CONFIG = flag_types.define_path(
    "config", None, "configs/table2.py:ROW. --config.field=value overrides any field."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU chips, such as v5e:4x4. Default: the devices of this machine."
)
_LARGEST_BATCH = flags.DEFINE_boolean(
    "largest_batch", False, "Find the largest batch per chip that fits."
)


def main(overrides: Sequence[str]) -> None:
    """Compiles the row that the flags name, and prints what it costs."""
    try:
        config = cli.parse_config([f"--config={_CONFIG.value}", *overrides])
        experiments.check(config)
        mesh = cost.make_mesh(_TOPOLOGY.value)
        if _LARGEST_BATCH.value:
            line = cost.largest_batch(config, mesh)
        else:
            line = cost.describe(config, mesh)
    except InputError as error:
        cli.fail(error)
    print(json.dumps(line))


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config",)))
