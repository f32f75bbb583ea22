"""launch.sweep, with runs that wait for SIGTERM instead of training. They need no JAX."""

import functools
import pathlib
import time

from absl import app

from launch import sweep
from rethinking import cli, distributed, experiments, runs


def wait(config, workdir, deadline):
    """Begins a run, writes a line, and saves when SIGTERM comes."""
    with runs.open_run(workdir, config, experiments.scientific):
        (pathlib.Path(workdir) / "metrics.jsonl").write_text("{}\n")
        while not distributed.sigterm_noticed() and time.monotonic() < deadline:
            time.sleep(0.01)
        (pathlib.Path(workdir) / "checkpoints").mkdir()


experiments.run = wait  # in the workers, too: each imports this file

if __name__ == "__main__":
    parse = functools.partial(cli.parse_flags, required=("config", "workdir"))
    app.run(sweep.main, flags_parser=parse)
