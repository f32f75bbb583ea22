"""rethinking.main, whose run is stopped before its first step and then continued at once."""

import functools
import time

from absl import app

from rethinking import cli, experiments, main

run = experiments.run


def stop_and_continue(config, workdir, deadline, writes):
    """Does what two calls of rethinking.main do, the first one with --time_budget=0."""
    assert run(config, workdir, time.monotonic(), writes) is None
    return run(config, workdir, deadline, writes)


if __name__ == "__main__":
    experiments.run = stop_and_continue
    parse = functools.partial(cli.parse_flags, required=("config", "workdir"))
    app.run(main.main, flags_parser=parse)
