"""Runs one experiment: one config in, one run directory out.

    python -m rethinking.main --config=configs/FILE.py:ROW --workdir=DIR [--config.field=value ...]

The same command continues an interrupted run.
If the input is bad, the command prints the reason and ends with exit code 2.

With --distributed, several processes make the run together, on the devices of all of them.
On Slurm (launch.slurm) and on TPU pods (launch.tpu_pod) they find each other.
On one machine, launch.local starts them.
"""

import contextlib
import functools
import logging
import math
import time

from absl import app, flags
from ml_collections import ConfigDict

from rethinking import cli, distributed, experiments, rendezvous
from rethinking.errors import InputError

_CONFIG = flags.DEFINE_string(
    "config", None, "configs/FILE.py:ROW. --config.field=value overrides any field."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory, created if missing. It may be in a bucket: gs://..."
)
_TIME_BUDGET = flags.DEFINE_float(
    "time_budget", math.inf, "Seconds after which the run is saved and stops."
)
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "This is one of several processes that make the run."
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0. Not needed on Slurm and TPU pods."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes. Not needed on Slurm and TPU pods."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, from 0. Not needed on Slurm and TPU pods."
)
_RENDEZVOUS_TIMEOUT = flags.DEFINE_float(
    "rendezvous_timeout", 300.0, "Seconds to wait until all processes have started."
)


def main(overrides: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    deadline = time.monotonic() + _TIME_BUDGET.value
    cli.log_to_terminal()
    try:
        config = cli.parse_config([f"--config={_CONFIG.value}", *overrides])
        with _join() as process_id:
            _run(config, deadline, process_id)
    except InputError as error:
        cli.fail(error)
    except rendezvous.RendezvousError as error:
        cli.fail(error, rendezvous.PEER_LOST)


def _join() -> contextlib.AbstractContextManager[int]:
    place = _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value:
        return distributed.join(*place, _RENDEZVOUS_TIMEOUT.value)
    if place != (None, None, None):
        raise InputError(
            "--coordinator_address, --num_processes and --process_id have no effect alone. "
            "Add --distributed."
        )
    return contextlib.nullcontext(0)


def _run(config: ConfigDict, deadline: float, process_id: int) -> None:
    writes = process_id == 0
    if not writes:
        # All processes log the same lines, so one of them is enough.
        cli.log_to_terminal(logging.WARNING)
    try:
        result = experiments.run(config, _WORKDIR.value, deadline, writes)
    except InputError as error:
        # Here, because leaving distributed.join by an error would print a traceback.
        cli.fail(error)
    if result and writes:
        run = f"{result['row']} seed {result['seed']}"
        print(f"{run}: {result['status']}, see {_WORKDIR.value}/result.json")


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
