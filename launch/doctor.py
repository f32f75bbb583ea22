"""Checks this machine before an experiment. Each line names one thing, and what to do if it fails.

    python -m launch.doctor [--config=configs/FILE.py,...] [--workdir=ROOT] [--data_dir=DIR]

It looks at Python and packages, NVIDIA's driver, memory, disks, open files and data sets. Then it
multiplies matrices, trains a small network and solves a small kernel system on JAX's devices: first
on GPUs or TPUs, then on the CPU. This takes a minute or two. It leaves only compiled programs.

A line begins with ok, with FAIL, or with note if only some runs need the thing. Exit code 1 means
that something failed.

With --distributed on a TPU pod, and under srun on Slurm, all processes find each other and make
these trials together. Process 0 prints all lines. The others print only what fails for them.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator

try:
    from absl import app, flags

    from launch.checks import FAIL, Line, cards, data, devices, host
    from rethinking import cli
    from rethinking.cli import flag_types
    from rethinking.errors import InputError
except ImportError as missing:
    print(f"FAIL  packages   {missing}. Run: pip install -e .")
    sys.exit(1)

_CONFIG = flag_types.define_paths(
    "config", ["configs/table1.py"], "The config files of your runs. Their data must be there."
)
_WORKDIR = flag_types.define_path("workdir", "runs", "The folder that runs will write.")
_DATA_DIR = flag_types.define_path(
    "data_dir", None, "The folder of the data sets, as in --config.data.data_dir of a run."
)
cli.define_place_flags()
# Slurm sets it in each task of a step.
_TASKS = "SLURM_STEP_NUM_TASKS"


def main(_: list[str]) -> None:
    """Prints the lines. Ends with exit code 1 if one of them fails."""
    cli.log_to_terminal()
    # So that the trial of the devices ends, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    places = place_flags(flags.FLAGS)
    failed = False
    try:
        lines = list(checks(places)) if places else checks(places)
        for line in lines:
            line.show()
            failed = failed or line.mark == FAIL
    except InputError as error:
        cli.fail(error)
    if failed:
        sys.exit(1)


def place_flags(values: flags.FlagValues) -> list[str]:
    """The flags by which this process finds others; none if it is alone."""
    names = ("coordinator_address", "num_processes", "process_id")
    given = [f"--{name}={values[name].value}" for name in names if values[name].present]
    several = int(os.environ.get(_TASKS) or 1) > 1
    if not (given or several or values.distributed):
        return []
    timeout = f"--rendezvous_timeout={values.rendezvous_timeout}"
    return ["--distributed", timeout, *given]


def checks(places: list[str]) -> Iterator[Line]:
    """All findings. With `places`, a process other than 0 gives only what fails for it."""
    if not places:
        yield from _before_devices()
        yield from devices.check(places, os.environ)[0]
        return
    before = list(_before_devices())
    after, process = devices.check(places, os.environ)
    for line in [*before, *after]:
        if process == 0:
            yield line
        elif line.mark == FAIL:
            who = f"process {process} on {socket.gethostname()}"
            yield Line(line.mark, line.name, f"{who}: {line.text}")


def _before_devices() -> Iterator[Line]:
    yield from host.packages()
    yield from cards.check()
    yield host.memory()
    yield from host.disks(_WORKDIR.value)
    yield host.open_files()
    yield from data.check(_CONFIG.value, _DATA_DIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: cli.parse_flags(argv, required=()))
