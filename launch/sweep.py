"""Makes the runs of a config file: all its rows, with several seeds each.

    python -m launch.sweep --config=configs/FILE.py --workdir=ROOT [--rows=REGEX] [--seeds=3] \\
        [--time_budget=SECONDS] [--parallel=N] [--dry_run] [--report] [--config.field=value ...]

The sweep skips finished runs and continues unfinished ones. Seed 0 of every row comes first.

Each run lives in ROOT/EXPERIMENT/ROW/seed_SEED. It uses its seed for training and for corruption
(config.seed and config.randomize.seed).

Runs that differ only in their names are made once. For example, Figure 1's true labels are a row
of Table 1. Reports find such a run by its config.

After the time budget, or at SIGTERM, the sweep saves its runs and stops. The same command
continues. A second SIGTERM ends the sweep at once.
"""

import functools
import math
import pathlib
import sys
import time

from absl import app, flags

from launch.jobs import Job, plan
from launch.workers import OUT_OF_TIME, check_devices, run_all
from rethinking import cli, distributed
from rethinking.cli import flag_types
from rethinking.errors import InputError

_CONFIG = flag_types.define_path("config", None, "configs/FILE.py. Its ROWS are run.")
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
    "parallel", 1, "Number of runs at once. They share the machine evenly.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "List the runs without making any.")
_REPORT = flags.DEFINE_boolean(
    "report", False, "At the end, print the tables and write the report to ROOT/report."
)


def main(overrides: list[str]) -> None:
    """Makes the runs that the flags describe. `overrides` (--config.field=value) apply to all."""
    cli.log_to_terminal()
    root = pathlib.Path(_WORKDIR.value)
    deadline = time.monotonic() + _TIME_BUDGET.value
    try:
        jobs = plan(_CONFIG.value, _WORKDIR.value, _ROWS.value, _SEEDS.value, overrides)
    except InputError as error:
        cli.fail(error)
    left = [job for job in jobs if job.is_left]
    for job in jobs:
        if _DRY_RUN.value or not job.is_left:
            print(f"{job}: {job.state}")
    if _DRY_RUN.value:
        print(f"{len(left)} of {len(jobs)} to run")
        return
    try:
        if left:
            check_devices(_PARALLEL.value)
    except InputError as error:
        cli.fail(error)
    ended = _run(left, deadline, root / "logs")
    if _REPORT.value:
        _write_report(root)
    if any(how.startswith("failed") for how in ended):
        sys.exit(1)


def _run(jobs: list[Job], deadline: float, log: pathlib.Path) -> list[str]:
    """Makes the runs and prints how each one ended. Returns how they ended."""
    ended: dict[pathlib.Path, str] = {}
    with distributed.notice_sigterm():
        for job, how in run_all(jobs, _PARALLEL.value, deadline, log):
            ended[job.workdir] = how
            print(f"{job}: {how} ({len(ended)} of {len(jobs)})", flush=True)
    left = [str(job) for job in jobs if ended[job.workdir] == OUT_OF_TIME]
    if left:
        print(f"Out of time; the same command continues with {len(left)}: {', '.join(left)}")
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
