"""One config in, one run directory out.

    python -m rethinking.main --config=configs/FILE.py:ROW --workdir=DIR [--config.field=value ...]

The same command continues an interrupted run. Exit code 2 means that the input was refused, with the reason.
"""

import functools
import math
import time

from absl import app, flags

from rethinking import cli
from rethinking.config import ConfigError

_CONFIG = flags.DEFINE_string("config", None, "configs/FILE.py:ROW. Any field is overridden by --config.field=value.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, made if it is not there.")
_TIME_BUDGET = flags.DEFINE_float("time_budget", math.inf, "Seconds after which to save and stop, to be continued.")


def main(overrides: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    deadline = time.time() + _TIME_BUDGET.value
    cli.log_to_terminal()
    try:
        config = cli.parse_config([f"--config={_CONFIG.value}", *overrides])
        result = cli.run(config, _WORKDIR.value, deadline)
    except ConfigError as error:
        cli.fail(error)
    if result:
        print(f"{result['row']} seed {result['seed']}: {result['status']}, see {_WORKDIR.value}/result.json")


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
