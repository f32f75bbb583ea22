"""One config in, one run directory out.

    python -m rethinking.main --config=configs/FILE.py:ROW --workdir=DIR [--config.field=value ...]

The same command continues an interrupted run. Exit code 2 means that the input was refused, with the reason.

With --distributed this is one of several processes that make the run together, on the devices of all of them: on Slurm
(launch.slurm) and TPU pods (launch.tpu_pod) nothing else is needed, launch.local starts several on one machine.
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
    "config", None, "configs/FILE.py:ROW. Any field is overridden by --config.field=value."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory, made if it is not there; gs://... for a bucket."
)
_TIME_BUDGET = flags.DEFINE_float(
    "time_budget", math.inf, "Seconds after which to save and stop, to be continued."
)
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "This is one of several processes that make the run."
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, if not found out."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are, if not found out."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0, if not found out."
)
_RENDEZVOUS_TIMEOUT = flags.DEFINE_float(
    "rendezvous_timeout", 300.0, "Seconds in which all processes must come."
)


def main(overrides: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    deadline = time.time() + _TIME_BUDGET.value
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
            "--coordinator_address, --num_processes and --process_id need --distributed"
        )
    return contextlib.nullcontext(0)


def _run(config: ConfigDict, deadline: float, process_id: int) -> None:
    first = process_id == 0
    if not first:  # what the first one says is enough
        cli.log_to_terminal(logging.WARNING)
    try:
        result = experiments.run(config, _WORKDIR.value, deadline, writes=first)
    except InputError as error:
        cli.fail(error)
    if result and first:
        print(
            f"{result['row']} seed {result['seed']}: {result['status']}, see {_WORKDIR.value}/result.json"
        )


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
