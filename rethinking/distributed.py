"""Several processes that make one run: how they find each other, end together, and learn of a preemption."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from rethinking import rendezvous
from rethinking.errors import InputError

_sigterm, _noticing = threading.Event(), threading.Event()


@contextlib.contextmanager
def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300.0,
) -> Iterator[int]:
    """Makes this process one of several that see all their devices together; gives its number, from 0.

    Without arguments Slurm or a TPU pod says how many there are and where. To be entered before JAX is used. Leaving it
    by an error ends the program, so that no process waits for one that has failed; a process also ends, with a message
    that names the other and exit code `rendezvous.PEER_LOST`, when another one is lost. SIGTERM is noticed meanwhile.

    Raises InputError if nothing says which processes there are, RendezvousError if some do not come in `timeout`
    seconds.
    """
    place, local_device_ids = _find_place(coordinator_address, num_processes, process_id, timeout)
    roll = rendezvous.call_roll(place, timeout)
    import jax  # here, since a run of one process has no need of this module

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # which would take SIGTERM: see `notice_sigterm`
    jax.distributed.initialize(
        place.address,
        place.num_processes,
        place.process_id,
        local_device_ids,
        cluster_detection_method="deactivate",
    )
    try:
        _connect()
        with notice_sigterm():
            yield place.process_id
    except BaseException as error:
        _end_program(error)
    roll.leave()
    jax.distributed.shutdown()


def _connect() -> None:
    """Has all processes talk to each other, now that they have just come. CPUs make a connection when it is first used,
    and wait for each other no longer than 30 seconds then: too short where one compiles a large network before."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("joined")  # between a device of each process
    devices = jax.sharding.Mesh(jax.devices(), ("devices",))
    spread, everywhere = (jax.NamedSharding(devices, jax.P(*axes)) for axes in (("devices",), ()))
    ones = jax.make_array_from_callback((devices.size,), spread, lambda _: np.ones(1))
    jax.jit(jax.numpy.sum, out_shardings=everywhere)(
        ones
    ).block_until_ready()  # between all devices


def _find_place(
    address: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> tuple[rendezvous.Place, Sequence[int] | None]:
    """Which process this is, and which of its host's GPUs it may use (None: all that it sees)."""
    given, local_device_ids = [address, num_processes, process_id], None
    if given == [None, None, None]:
        import jax  # noqa: F401  the next import needs it
        from jax._src.clusters import (
            ClusterEnv,
        )  # what `jax.distributed.initialize` asks; it has no public name

        *given, local_device_ids = ClusterEnv.auto_detect_unset_distributed_params(
            *[None] * 5, round(timeout)
        )
        if None in given:
            raise InputError(
                "--distributed: this is not a process of Slurm's srun, of mpirun or of a TPU pod. On one "
                "machine use launch.local; elsewhere give --coordinator_address, --num_processes and "
                "--process_id."
            )
    if None in given:
        raise InputError(
            "--coordinator_address, --num_processes and --process_id: give all three or none of them"
        )
    place = rendezvous.Place(*given)
    if not 0 <= place.process_id < place.num_processes:
        raise InputError(
            f"--process_id={place.process_id}: must be from 0 to {place.num_processes - 1}, one less "
            "than --num_processes"
        )
    if not place.address.rpartition(":")[2].isdecimal():
        raise InputError(f"--coordinator_address={place.address}: must be HOST:PORT")
    return place, local_device_ids


def _end_program(error: BaseException) -> NoReturn:
    """Ends this process now: on its usual way out JAX waits for all others, which may be waiting for this one."""
    code = 1
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else code
        else:
            time.sleep(
                1.0
            )  # If this error is another process's end, the roll ends this one here, and says whose.
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@contextlib.contextmanager
def notice_sigterm() -> Iterator[None]:
    """While this is entered, SIGTERM does not end the program, but makes `sigterm_noticed` true. A second SIGTERM ends
    it, if it comes a second later or more: `timeout`, for one, sends the first one twice. Within another it is no
    more."""
    if _noticing.is_set():
        yield
        return
    noted_at = math.inf

    def note(*_) -> None:
        nonlocal noted_at
        if time.time() > noted_at + 1:
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)
        noted_at = min(noted_at, time.time())
        note_sigterm()

    before = signal.signal(signal.SIGTERM, note)
    _noticing.set()
    try:
        yield
    finally:
        _noticing.clear()
        signal.signal(signal.SIGTERM, before)


def note_sigterm(*_: object) -> None:
    """A handler for SIGTERM, where any number of them are to mean the same; see `notice_sigterm`."""
    _sigterm.set()


def sigterm_noticed() -> bool:
    """Whether this process was sent SIGTERM, and noticed: see `notice_sigterm`."""
    return _sigterm.is_set()


def must_stop(deadline: float) -> bool:
    """Whether a run is to stop, the same on all processes: `deadline` (of time.time()) has come, or SIGTERM."""
    return agreed(time.time() >= deadline or sigterm_noticed())


def agreed(value: bool) -> bool:
    """Whether `value` is true in any process: for what each may see differently, such as whether it is late.

    All processes of a run must call this equally often, and wait for each other.
    """
    import jax
    from jax.experimental import multihost_utils

    return (
        bool(multihost_utils.process_allgather(int(value)).any())
        if jax.process_count() > 1
        else value
    )
