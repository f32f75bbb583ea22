"""Estimates the runs of a sweep: their work, and the seconds that they take on a device."""

import collections
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from launch import devices
from launch.jobs import FINISHED, Job
from rethinking import chips, experiments, provenance, runs
from rethinking.errors import InputError, require_known
from rethinking.experiments import work
from rethinking.experiments.work import Part

# The parts of a chip's published rates that a run is assumed to reach. Nobody has measured them.
_OPERATIONS, _BANDWIDTH = 0.3, 0.5
# The parts of a CPU's measured rate of matrix products that networks reach: see docs/gpu.md.
_PRODUCTS, _CONVOLUTIONS = 0.8, 0.33
# Seconds of a run in which a program starts, reads the data and compiles.
_START = 10.0
_STARTING = f"Each run takes {_START:g} s more to start and compile."
_SIDE = 1024  # of the matrices whose product is measured
_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


class Device(NamedTuple):
    """A device, and how long it takes."""

    name: str
    assumed: str  # sentences: what the estimate assumes
    seconds: Callable[[Part], float | None]  # None: it cannot compute this, or the time is unknown


def find_device(name: str | None, environment: Mapping[str, str]) -> Device:
    """The device with this short name, such as "h100" or "cpu". None: that of this machine.

    Raises InputError, with the nearest known name, for an unknown device.
    """
    if name is not None:
        require_known(name.lower(), (*chips.SHORT_NAMES, "cpu"), f"--device={name}: unknown device")
        return _cpu() if name.lower() == "cpu" else _chip(chips.SHORT_NAMES[name.lower()])
    kind = devices.kind(environment)
    if kind is None:
        return _cpu()
    if kind in chips.CHIPS:
        return _chip(kind)
    known = ", ".join(chips.SHORT_NAMES)
    assumed = f"The rates of {kind} are not known. Choose one of these by --device: {known}."
    return Device(f"one {kind}", assumed, lambda part: None)


def _chip(name: str) -> Device:
    chip = chips.CHIPS[name]

    def seconds(part: Part) -> float | None:
        if not chip.rate(part.dtype):
            return None
        bounds = chip.bounds(part.dtype, part.flops, part.bytes, part.kernels)
        once = max(bounds.work / _OPERATIONS, bounds.memory / _BANDWIDTH, bounds.launches)
        return part.times * once

    rates = f"float32 products at {chip.float32 / 1e12:g} TFLOP/s"
    if chip.float64:
        rates += f", float64 at {chip.float64 / 1e12:g} TFLOP/s"
    launches = ""
    if chip.launch_seconds:
        launches = f", or {1e6 * chip.launch_seconds:g} us for each kernel"
    assumed = (
        f"Assumed, not measured: {_OPERATIONS:.0%} of the published rates ({rates}), or "
        f"{_BANDWIDTH:.0%} of the {chip.bandwidth / 1e9:,g} GB/s of its memory{launches}, "
        f"whichever takes longest. {_STARTING}"
    )
    return Device(f"one {name}", assumed, seconds)


def _cpu() -> Device:
    rates = {dtype: product_rate(dtype) for dtype in ("float32", "float64")}
    cores = provenance.usable_cores()

    def seconds(part: Part) -> float:
        share = _CONVOLUTIONS if part.convolves else _PRODUCTS
        return part.times * part.flops / (share * rates.get(part.dtype, rates["float32"]))

    assumed = (
        f"Measured: matrix products at {rates['float32'] / 1e9:,.0f} GFLOP/s in float32 and "
        f"{rates['float64'] / 1e9:,.0f} in float64. Assumed: {_PRODUCTS:.0%} of that for networks "
        f"without convolutions, {_CONVOLUTIONS:.0%} with them. {_STARTING}"
    )
    return Device(f"this CPU ({cores} core{'s' if cores > 1 else ''})", assumed, seconds)


def product_rate(dtype: str) -> float:
    """The operations a second of matrix products on all usable cores of this CPU.

    It measures one thread by its CPU time, so other programs disturb it little.
    """
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    setup = f"import numpy; a = numpy.ones(({_SIDE}, {_SIDE}), '{dtype}')"
    code = f"print(min(timeit.repeat('a @ a', {setup!r}, time.process_time, 9, 1)))"
    measured = subprocess.run(
        [sys.executable, "-c", f"import time, timeit; {code}"],
        env=os.environ | one_thread,
        capture_output=True,
        text=True,
        check=True,
    )
    return provenance.usable_cores() * 2 * _SIDE**3 / float(measured.stdout)


class Estimate(NamedTuple):
    """The work of a run, and its seconds."""

    flops: float = 0.0
    seconds: float | None = None  # None: unknown
    problem: str = ""  # why the work is not known


def estimate(job: Job, device: Device) -> Estimate:
    """What a run of `job` takes on `device`, to its last epoch."""
    try:
        parts = work.count(job.config)
    except InputError as error:
        return Estimate(problem=str(error))
    times = [device.seconds(part) for part in parts]
    seconds = None if None in times else _START + sum(times)
    return Estimate(work.flops(parts), seconds)


def lines(jobs: Sequence[Job], device: Device) -> Iterator[str]:
    """A line for each run: its state, its work, its time, and how long it took if it is finished.

    The last lines are the sums.
    """
    found: dict[str, Estimate] = {}  # runs that differ in their seeds alone take equally long
    left = []
    took = collections.Counter()
    for job in jobs:
        text = f"{job}: {job.state}"
        if job.is_left or job.state == FINISHED:
            key = experiments.digest(job.config)
            one = found[key] if key in found else estimate(job, device)
            found[key] = one
            text += f", {one.problem or _words(one)}"
            if job.is_left:
                left.append(one)
        result = runs.read_result(job.workdir) if job.state == FINISHED else None
        if result and result.get("seconds") is not None:
            took[result.get("device", "an unknown device")] += result["seconds"]
            text += f"; took {duration(result['seconds'])} on {result.get('device')}"
        yield text
    yield from _sums(left, took, device)


def _sums(left: Sequence[Estimate], took: Mapping[str, float], device: Device) -> Iterator[str]:
    known = [one.seconds for one in left if one.seconds is not None]
    if left:
        total = f"Runs to make, {len(left)}: {operations(sum(one.flops for one in left))}"
        if known:
            total += f", about {duration(sum(known))} on {device.name}, one after another"
        if len(known) < len(left):
            total += f". The time of {len(left) - len(known)} of them is not known"
        yield f"{total}."
        yield "Times are for all epochs. A run that ends when it fits takes less."
        yield device.assumed
    for name, seconds in took.items():
        yield f"Finished runs took {duration(seconds)} on {name}."


def _words(one: Estimate) -> str:
    text = operations(one.flops)
    return text if one.seconds is None else f"{text}, about {duration(one.seconds)}"


def operations(flops: float) -> str:
    """A number of operations in words, such as "7.88 PFLOP"."""
    for size, unit in _UNITS:
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops:.0f} FLOP"


def duration(seconds: float) -> str:
    """A time in words, such as "2.5 h"."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
