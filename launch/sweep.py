"""Makes the runs of config files: all their rows, with several seeds each.

    python -m launch.sweep --config=configs/FILE.py[,configs/FILE.py...] --workdir=ROOT \\
        [--rows=REGEX] [--seeds=3] [--time_budget=SECONDS] [--parallel=N] [--report] \\
        [--dry_run [--device=h100]] [--config.field=value ...]

The sweep skips finished runs, and runs that another process is making. It continues unfinished
ones. Seed 0 of every row comes first. Without --rows, the most important rows of a file come first:
those that it lists in TELLING. With several files, the sweep takes one row from each in turn.

Each run lives in ROOT/EXPERIMENT/ROW/seed_SEED. It uses its seed for training and for corruption
(config.seed and config.randomize.seed).

Runs that differ only in their names are made once. For example, Figure 1's true labels are a row
of Table 1. Reports find such a run by its config.

With --dry_run the sweep makes no run. It prints the work of each run, an estimate of its time on a
device, and the time that finished runs took. This machine need not have the device.

After the time budget, or at SIGTERM, the sweep saves its runs and stops. The same command
continues. A second SIGTERM ends the sweep at once.
"""

import functools
import math
import os
import pathlib
import sys
import time

from absl import app, flags

from launch import devices
from launch.jobs import Job, plan
from launch.workers import OUT_OF_TIME, check_devices, run_all
from rethinking import cli, distributed
from rethinking.cli import flag_types
from rethinking.errors import InputError, require

_CONFIG = flag_types.define_paths(
    "config", None, "configs/FILE.py, or several with commas between them. All their rows are run."
)
_WORKDIR = flag_types.define_path("workdir", None, "The folder of all run directories.")
_ROWS = flags.DEFINE_string(
    "rows", "", "Run only the rows that this regular expression matches somewhere."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Number of runs for each row, with seeds 0, 1, ...", lower_bound=1
)
_TIME_BUDGET = flag_types.define_seconds(
    "time_budget", math.inf, "Seconds after which the sweep saves its runs and stops."
)
_PARALLEL = flags.DEFINE_integer(
    "parallel",
    1,
    "Number of runs at once. Each gets an equal share of the devices, cores and memory.",
    lower_bound=1,
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "List the runs, their work and their times without making any."
)
_DEVICE = flags.DEFINE_string(
    "device",
    None,
    "With --dry_run: the device to estimate times for, such as h100, v5e or cpu. Default: the "
    "device of this machine.",
)
_REPORT = flags.DEFINE_boolean(
    "report", False, "At the end, print the tables and write the report to ROOT/report."
)


def main(overrides: list[str]) -> None:
    """Makes the runs that the flags describe. `overrides` (--config.field=value) apply to all."""
    cli.log_to_terminal()
    root = pathlib.Path(_WORKDIR.value)
    deadline = time.monotonic() + _TIME_BUDGET.value
    try:
        require(
            _DRY_RUN.value or _DEVICE.value is None,
            f"--device={_DEVICE.value} is for an estimate. Add --dry_run.",
        )
        jobs = plan(_CONFIG.value, _WORKDIR.value, _ROWS.value, _SEEDS.value, overrides)
    except InputError as error:
        cli.fail(error)
    left = [job for job in jobs if job.is_left]
    if _DRY_RUN.value:
        _show_plan(jobs)
        print(f"{len(left)} of {len(jobs)} to run")
        return
    for job in jobs:
        if not job.is_left:
            print(f"{job}: {job.state}")
    try:
        if left:
            _require_data(left)
            check_devices(_PARALLEL.value)
        ended = _run(left, deadline, root / "logs")
    except InputError as error:  # no data or device for the runs, or they cannot share the devices
        cli.fail(error)
    if _REPORT.value:
        _write_report(root)
    if any(how.startswith("failed") for how in ended):
        sys.exit(1)


def _require_data(jobs: list[Job]) -> None:
    """Raises InputError if a data set is missing, so that not every run of it fails."""
    from rethinking.data import source  # here, because it imports slowly

    sets = {(job.config.data.name, job.config.data.data_dir or None): job for job in jobs}
    for (name, data_dir), job in sets.items():
        try:
            source.require_there(name, data_dir)
        except InputError as error:
            raise InputError(f"{job}: {error}") from error


def _show_plan(jobs: list[Job]) -> None:
    """Prints the runs, and what they will take. It leaves accelerators to other programs."""
    from launch import estimate  # here, because a sweep that makes runs needs none of it

    try:
        device = estimate.find_device(_DEVICE.value, os.environ)
    except InputError as error:
        cli.fail(error)
    os.environ["JAX_PLATFORMS"] = "cpu"
    for line in estimate.lines(jobs, device):
        print(line, flush=True)


def _run(jobs: list[Job], deadline: float, log: pathlib.Path) -> list[str]:
    """Makes the runs and prints how each one ended. Returns how they ended."""
    ended: dict[pathlib.Path, str] = {}
    idle = devices.idle(jobs, _PARALLEL.value, os.environ)
    if idle:
        print(idle, file=sys.stderr)
    with distributed.notice_sigterm():
        for job, how in run_all(jobs, _PARALLEL.value, deadline, log):
            ended[job.workdir] = how
            print(f"{job}: {how} ({len(ended)} of {len(jobs)})", flush=True)
    left = [str(job) for job in jobs if ended[job.workdir] == OUT_OF_TIME]
    if left:
        print(f"Out of time. The same command continues with {len(left)}: {', '.join(left)}")
    return list(ended.values())


def _write_report(root: pathlib.Path) -> None:
    from rethinking import report  # here, because a sweep without a report needs none of it

    try:
        print(report.build([root], root / "report"))
    except InputError as error:  # there is no run yet
        cli.fail(error)
    print(f"The page and the figures are in {root / 'report'}")


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
