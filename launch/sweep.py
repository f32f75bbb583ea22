"""Runs rows of a config file, several seeds each, skipping what is done and continuing what is not.

    python -m launch.sweep --config=configs/FILE.py --workdir=ROOT [--rows=REGEX] [--seeds=3] [--time_budget=SECONDS]
        [--parallel=N] [--dry_run] [--report] [--config.field=value ...]

Run `seed` of a row uses it for training and for corruption (config.seed and config.randomize.seed), and lives in
ROOT/EXPERIMENT/ROW/seed_SEED. Seed 0 of every row comes first. A run that equals another under ROOT in all but its
name (Figure 1's true labels are a row of Table 1) is not made twice: reports find it by its config. After the time
budget, or at SIGTERM, runs are saved and the same command continues; a second SIGTERM ends the sweep at once.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator

from absl import app, flags
from etils import epath
from ml_collections import ConfigDict

from rethinking import cli, distributed, experiments, runs
from rethinking.config import load_file
from rethinking.errors import InputError, nearest

_CONFIG = flags.DEFINE_string("config", None, "configs/FILE.py, whose ROWS are run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of all run directories.")
_ROWS = flags.DEFINE_string("rows", "", "Only rows in which this regular expression is found.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Runs per row, with seeds 0, 1, ...", lower_bound=1)
_TIME_BUDGET = flags.DEFINE_float(
    "time_budget", math.inf, "Seconds after which to save, stop and say what is left."
)
_PARALLEL = flags.DEFINE_integer(
    "parallel", 1, "Runs at once, each with its share of the machine.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Only say what would be run.")
_REPORT = flags.DEFINE_boolean(
    "report", False, "Afterwards print the tables, and write the report to ROOT/report."
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the sweep."""

    config: ConfigDict
    workdir: pathlib.Path
    state: str  # "to do", "unfinished", or "finished"; or the run directory that already holds an equal run

    def __str__(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"


def plan(
    file: str,
    root: str | os.PathLike,
    rows: str = "",
    seeds: int = 1,
    overrides: tuple[str, ...] = (),
) -> list[Job]:
    """All runs of the sweep in order, with their states; raises InputError for anything that cannot be run."""
    if "://" in os.fspath(root):
        raise InputError(
            f"--workdir={root}: a sweep's runs lie on this machine. Single runs of rethinking.main can "
            "lie in a bucket."
        )
    for override in overrides:
        if override.startswith(("--config.seed=", "--config.randomize.seed=")):
            raise InputError(
                f"{override}: a sweep sets the seeds of its runs; --seeds=3 makes 0, 1 and 2"
            )
    module = load_file(file)
    chosen = _matching(module.ROWS, rows)
    root = pathlib.Path(root)
    finished = dict(_finished_runs(root))
    jobs = []
    for seed in range(seeds):
        for row in chosen:
            config = cli.parse_config(
                [
                    f"--config={file}:{row}",
                    *overrides,
                    f"--config.seed={seed}",
                    f"--config.randomize.seed={seed}",
                ]
            )
            experiments.check(config)
            workdir = root / config.experiment / config.row.partition(":")[2] / f"seed_{seed}"
            state = "to do"
            if (workdir / "config.json").exists():
                runs.refuse_another(
                    epath.Path(workdir / "config.json"), config, experiments.scientific
                )
                state = "unfinished"
            if runs.read_result(workdir):
                state = "finished"
            elif (key := _key(config)) in finished:
                state = str(finished[key])
            else:
                finished[key] = workdir
            jobs.append(Job(config, workdir, state))
    return jobs


def _matching(rows: tuple[str, ...], pattern: str) -> list[str]:
    try:
        chosen = [row for row in rows if re.search(pattern, row)]
    except re.error as error:
        raise InputError(f"--rows={pattern}: not a regular expression: {error}") from None
    if not chosen:
        raise InputError(f"--rows={pattern} matches no row. {nearest(pattern, rows)}")
    return chosen


def _finished_runs(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for result in root.rglob("result.json"):
        with contextlib.suppress(OSError, ValueError):  # no run: the report says so
            yield _key(json.loads((result.parent / "config.json").read_text())), result.parent


def _key(config: ConfigDict | dict) -> str:
    return json.dumps(experiments.scientific(config), sort_keys=True)


def run_job(job: Job, deadline: float) -> str:
    """Makes one run; returns how it ended: its status, "out of time" (or SIGTERM came), or "failed: reason"."""
    if time.time() >= deadline or distributed.sigterm_noticed():
        return "out of time"
    try:
        result = experiments.run(job.config, str(job.workdir), deadline)
    except Exception as error:  # one failure must not end the others
        return f"failed: {type(error).__name__}: {error}"
    return result["status"] if result else "out of time"


def run_all(
    jobs: list[Job], parallel: int, deadline: float, log: pathlib.Path
) -> Iterator[tuple[Job, str]]:
    """Makes the runs, `parallel` at once, and yields each with how it ended as it ends."""
    if parallel == 1:
        yield from ((job, run_job(job, deadline)) for job in jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # JAX does not survive a fork
    initializer = functools.partial(_take_share, spawn.Value("i", 0), parallel, log)
    with concurrent.futures.ProcessPoolExecutor(parallel, spawn, initializer) as pool:
        pending = {pool.submit(run_job, job, deadline): job for job in jobs}
        forwarded = False
        while pending:
            try:
                done, _ = concurrent.futures.wait(pending, 0.5, concurrent.futures.FIRST_COMPLETED)
            except KeyboardInterrupt:  # Ctrl-C: what runs is saved, and nothing else begun.
                pool.shutdown(wait=False, cancel_futures=True)
                _each_worker("terminate")
                raise
            if distributed.sigterm_noticed() and not forwarded:
                forwarded = True
                _each_worker("terminate")
            for future in done:
                error = future.exception()
                if isinstance(error, concurrent.futures.process.BrokenProcessPool):
                    _each_worker(
                        "kill"
                    )  # The pool waits for them, and they would wait for the pool.
                if error and forwarded:  # It came while a worker was still starting.
                    yield pending.pop(future), "out of time"
                else:
                    yield pending.pop(future), f"failed: {error}" if error else future.result()


def _each_worker(do: str) -> None:
    for worker in multiprocessing.active_children():
        getattr(worker, do)()


def _take_share(counter, parallel: int, log: pathlib.Path) -> None:
    """Gives this worker its own cores and its part of the accelerator's memory, and a file for what it prints.

    At SIGTERM it saves its run. It ends when the sweep does, even by a kill; its run is continued by the next sweep.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all of them; it is the sweep that answers it.
    signal.signal(
        signal.SIGTERM, distributed.note_sigterm
    )  # It may come from the sweep and from elsewhere.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // parallel)
        first = number * share % len(cores)
        os.sched_setaffinity(0, cores[first : first + share])
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / parallel:.3f}")
    log.mkdir(parents=True, exist_ok=True)
    os.dup2(
        os.open(log / f"worker_{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        sys.stderr.fileno(),
    )
    cli.log_to_terminal()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def main(overrides: list[str]) -> None:
    """Runs the sweep that the flags describe, with `overrides` (--config.field=value) applied to every run."""
    cli.log_to_terminal()
    root = pathlib.Path(_WORKDIR.value)
    deadline = time.time() + _TIME_BUDGET.value
    try:
        jobs = plan(_CONFIG.value, _WORKDIR.value, _ROWS.value, _SEEDS.value, tuple(overrides))
    except InputError as error:
        cli.fail(error)
    todo = [job for job in jobs if job.state in ("to do", "unfinished")]
    for job in jobs:
        if _DRY_RUN.value or job not in todo:
            print(
                f"{job}: {job.state if job.state in ('to do', 'unfinished', 'finished') else 'same as ' + job.state}"
            )
    if _DRY_RUN.value:
        print(f"{len(todo)} of {len(jobs)} to run")
        return
    ended = {}
    with distributed.notice_sigterm():
        for job, how in run_all(todo, _PARALLEL.value, deadline, root / "logs"):
            ended[job.workdir] = how
            print(f"{job}: {how} ({len(ended)} of {len(todo)})", flush=True)
    left = [job for job in todo if ended[job.workdir] == "out of time"]
    if left:
        print(
            f"Out of time; the same command continues with {len(left)}: {', '.join(map(str, left))}"
        )
    if _REPORT.value:
        from rethinking import report

        try:
            print(report.build([root], root / "report"))
        except InputError as error:  # no run was begun
            cli.fail(error)
        print(f"The page and the figures are in {root / 'report'}")
    if any(how.startswith("failed") for how in ended.values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=("config", "workdir")))
