"""Makes the runs of a sweep, one after another or several at once, each in its own process."""

import concurrent.futures
import concurrent.futures.process
import functools
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from launch import devices
from launch.jobs import Job
from rethinking import accelerator, cli, distributed, experiments, failures, runs
from rethinking.errors import InputError

OUT_OF_TIME = "out of time"
IN_USE = "skipped: another process is making it"


def run_all(
    jobs: list[Job], parallel: int, deadline: float, log: pathlib.Path
) -> Iterator[tuple[Job, str]]:
    """Makes the runs, `parallel` at once. Yields each one, and how it ended, when it ends.

    With several at once, each worker process writes its messages to a file in the folder `log`.
    Raises InputError, before the first run, if they cannot share the devices of this machine.
    """
    parallel = min(parallel, len(jobs))
    if parallel > 1:
        yield from _run_in_workers(jobs, parallel, deadline, log)
        return
    for job in jobs:
        yield job, run_job(job, deadline)


def check_devices(parallel: int) -> None:
    """Raises InputError if JAX would leave an accelerator of this machine idle, or has no device.

    JAX takes memory of the accelerator. So if workers make the runs, another process looks.
    """
    if not accelerator.idle():
        return
    if parallel == 1:
        _look()
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        pool.submit(_look).result()


def _look() -> None:
    from rethinking import sharding  # here: JAX imports slowly, and a plan needs none of it

    sharding.all_devices()


def run_job(job: Job, deadline: float) -> str:
    """Makes one run. Returns its status, "out of time", "skipped: REASON" or "failed: REASON".

    After `deadline` or SIGTERM it is "out of time", and the run is saved. A run that another
    process is making, such as a second sweep, is skipped.
    """
    if time.monotonic() >= deadline or distributed.sigterm_noticed():
        return OUT_OF_TIME
    try:
        result = experiments.run(job.config, str(job.workdir), deadline)
    except runs.InUse:
        return IN_USE
    except (Exception, SystemExit) as error:  # the sweep goes on with the next run
        return f"failed: {_explain(error, job.workdir)}"
    return result["status"] if result else OUT_OF_TIME


def _explain(error: BaseException, workdir: pathlib.Path) -> str:
    """What went wrong, in a line, and where the traceback is: in a file of the run."""
    text = failures.summary(error)
    place = failures.place(error.__cause__ or error)
    if place and place not in text:
        text = f"{place}: {text}"
    if isinstance(error, InputError) and not error.__cause__:
        return text
    failures.record(error, workdir)
    log = workdir / failures.LOG
    if log.exists():
        return f"{text} The traceback is in {log}"
    traceback.print_exception(error)  # the disk is full, for instance
    return text


def _run_in_workers(
    jobs: list[Job], parallel: int, deadline: float, log: pathlib.Path
) -> Iterator[tuple[Job, str]]:
    shares = devices.share(parallel, os.environ)
    for job in jobs:
        shares.check(job.config.num_devices)
    # A new interpreter for each worker, because JAX does not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    initializer = functools.partial(_begin_worker, spawn.Value("i", 0), shares.environments, log)
    with concurrent.futures.ProcessPoolExecutor(parallel, spawn, initializer) as pool:
        pending = {pool.submit(run_job, job, deadline): job for job in jobs}
        forwarded = False
        try:
            while pending:
                done, _ = concurrent.futures.wait(
                    pending, 0.5, return_when=concurrent.futures.FIRST_COMPLETED
                )
                if distributed.sigterm_noticed() and not forwarded:
                    forwarded = True
                    _terminate_workers()
                for future in done:
                    yield pending.pop(future), _how_it_ended(future, forwarded)
        except BaseException:
            # After Ctrl-C, here or in the code that prints the runs, the workers save their runs
            # and start no other one.
            pool.shutdown(wait=False, cancel_futures=True)
            _terminate_workers()
            raise


def _terminate_workers() -> None:
    """Sends SIGTERM to all workers, so that they save their runs."""
    for worker in multiprocessing.active_children():
        worker.terminate()


def _how_it_ended(future: concurrent.futures.Future, forwarded: bool) -> str:
    """The value that `run_job` returned. `forwarded` says whether the workers were sent SIGTERM."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        # A worker was killed. The pool waits for the others, which would wait for the pool.
        for worker in multiprocessing.active_children():
            worker.kill()
    if forwarded:
        # SIGTERM ended a worker that was still starting.
        return OUT_OF_TIME
    return f"failed: {error}"


def _begin_worker(counter, environments: list[dict[str, str]], log: pathlib.Path) -> None:
    """Prepares this worker process: signals, devices, cores and its log file.

    `environments` has the variables that give each worker its devices.

    The worker ends when the sweep ends, even if the sweep is killed. The next sweep then
    continues its run.
    """
    # A terminal sends Ctrl-C to all processes. The sweep answers it, and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SIGTERM may come twice, from the sweep and from outside.
    signal.signal(signal.SIGTERM, distributed.note_sigterm)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    os.environ.update(environments[number])
    _take_cores(number, len(environments))
    log.mkdir(parents=True, exist_ok=True)
    file = os.open(log / f"worker_{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, sys.stderr.fileno())
    cli.log_to_terminal()


def _take_cores(number: int, parallel: int) -> None:
    """Gives worker `number` its own cores."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // parallel)
        first = number * share % len(cores)
        os.sched_setaffinity(0, cores[first : first + share])


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
