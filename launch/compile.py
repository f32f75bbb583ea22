"""What a row of Table 2 takes of each chip, before there is a chip: memory, work, traffic, and the time they bound.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python -m launch.compile --config=configs/table2.py:none --topology=v5e:16x16

Compiles the row's training step for a TPU topology that need not be there (package libtpu), or, without --topology,
for the devices of this machine, and prints one JSON line. Per chip: the bytes of parameters, optimizer and all else
that is kept between steps (`state_gb`), of the batch, of activations and other temporaries, and whether they fit;
floating-point operations; bytes read and written; bytes that collectives carry. `step_ms` is the roofline's: the
largest of the times that operations and memory need at the chip's rates, plus that of the collectives, as if nothing
hid them. `--largest_batch` looks for the largest batch that fits, by doubling the batch per chip. Compiling takes some
minutes of one core.
"""

import functools
import json
from collections.abc import Sequence

from absl import app, flags

from rethinking import cli, experiments
from rethinking.errors import InputError
from rethinking.experiments import cost

_CONFIG = flags.DEFINE_string(
    "config", None, "configs/table2.py:ROW. Any field is overridden by --config.field=value."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU chips such as v5e:4x4; without it, this machine's devices."
)
_LARGEST_BATCH = flags.DEFINE_boolean(
    "largest_batch", False, "Look for the largest batch per chip that fits."
)


def main(overrides: Sequence[str]) -> None:
    """Compiles the row that the flags name."""
    try:
        config = cli.parse_config([f"--config={_CONFIG.value}", *overrides])
        experiments.check(config)
        mesh = cost.make_mesh(_TOPOLOGY.value)
        print(
            json.dumps(
                (cost.largest_batch if _LARGEST_BATCH.value else cost.describe)(config, mesh)
            )
        )
    except InputError as error:
        cli.fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config",)))
