"""Makes one run: reads a config and writes a run directory.

    python -m rethinking.main --config=configs/FILE.py:ROW --workdir=DIR [--config.field=value ...]

The same command continues an interrupted run. A run goes on when its terminal closes or its SSH
connection ends. To save and end it then, use `kill` with the number of its process.
If the input is bad, the command prints the reason and ends with exit code 2.

With --distributed, several processes make the run together, on the devices of all of them.
On Slurm (launch.slurm) and on TPU pods (launch.tpu_pod) they find each other.
On one machine, launch.local starts them.

--profile=STEPS measures the time of training steps, and --debug_nans finds the layer in which a
value is not finite: see docs/gpu.md.
"""

import contextlib
import functools
import logging
import time
from typing import NoReturn

from absl import app, flags
from ml_collections import ConfigDict

from rethinking import cli, distributed, experiments, failures, rendezvous
from rethinking.errors import InputError
from rethinking.experiments.inspection import Inspection

FLAGS = flags.FLAGS
cli.define_run_flags()


def main(overrides: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    deadline = time.monotonic() + FLAGS.time_budget
    cli.log_to_terminal()
    try:
        config = cli.parse_config([f"--config={FLAGS.config}", *overrides])
        with _join() as process_id:
            _run(config, deadline, process_id)
    except InputError as error:
        _fail(error)
    except rendezvous.RendezvousError as error:
        cli.fail(error, rendezvous.PEER_LOST)


def _join() -> contextlib.AbstractContextManager[int]:
    place = FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id
    if FLAGS.distributed:
        return distributed.join(*place, FLAGS.rendezvous_timeout)
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
        inspection = Inspection(FLAGS.profile, FLAGS.debug_nans)
        result = experiments.run(config, FLAGS.workdir, deadline, writes, inspection)
    except Exception as error:
        # Here, because leaving distributed.join by an error would print a traceback.
        if failures.is_correctable(error):
            _fail(error, writes)
        if writes:
            failures.record(error, FLAGS.workdir)
        raise
    if result and writes:
        run = f"{result['row']} seed {result['seed']}"
        print(f"{run}: {result['status']}, see {FLAGS.workdir}/result.json")


def _fail(error: Exception, writes: bool = True) -> NoReturn:
    """Ends the program for a mistake of the user."""
    if writes:
        failures.record(error, FLAGS.workdir)
    cli.fail(failures.describe(error))


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
