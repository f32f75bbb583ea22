"""Several processes that make one run: they join, end together and learn of a preemption."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from rethinking import provenance, rendezvous
from rethinking.errors import InputError
from rethinking.rendezvous import slurm

_sigterm, _noticing = threading.Event(), threading.Event()


@contextlib.contextmanager
def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300.0,
) -> Iterator[int]:
    """Yields the number of this process, from 0, once all processes of the run have joined.

    Inside, JAX sees the devices of all processes, and SIGTERM is noticed (`notice_sigterm`).
    Without arguments, Slurm or the TPU pod says how many processes there are and where.
    Enter it before JAX is used.

    An error inside ends the program at once, because other processes would wait for this one.
    If another process is lost, this one ends with exit code `rendezvous.PEER_LOST`, and its
    message names the other one.

    Raises InputError if nothing says which processes there are. If JAX finds no device, the program
    ends with exit code 2 and the reason.
    Raises RendezvousError if some do not join within `timeout` seconds.
    """
    place, local_device_ids = _find_place(coordinator_address, num_processes, process_id, timeout)
    roll = rendezvous.call_roll(place, timeout)
    import jax  # here, because commands import this module and need no JAX

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    host, port = place.host_and_port
    # JAX's own service would take SIGTERM away from `notice_sigterm`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        place.address,
        place.num_processes,
        place.process_id,
        local_device_ids,
        cluster_detection_method="deactivate",
        # None: all networks.
        coordinator_bind_address=f"127.0.0.1:{port}" if rendezvous.is_loopback(host) else None,
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
    """Makes all processes exchange data once, right after they have joined.

    On CPUs, JAX connects two processes when they first exchange data, and gives up after 30
    seconds. Later, one process may still compile a large network, and 30 seconds are too few.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    from rethinking import sharding

    sharding.all_devices()  # explains why there are none
    # This connects one device of each process.
    multihost_utils.sync_global_devices("joined")
    # This connects all devices.
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    sharded = jax.NamedSharding(mesh, jax.P("devices"))
    replicated = jax.NamedSharding(mesh, jax.P())
    ones = jax.make_array_from_callback((mesh.size,), sharded, lambda _: np.ones(1))
    jax.jit(jax.numpy.sum, out_shardings=replicated)(ones).block_until_ready()


def _find_place(
    address: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> tuple[rendezvous.Place, Sequence[int] | None]:
    """Returns the place of this process, and the GPUs of its host that it may use (None: all)."""
    given, local_device_ids = [address, num_processes, process_id], None
    if given == [None, None, None]:
        *given, local_device_ids = _ask_cluster(timeout)
        if None in given:
            raise InputError(
                "--distributed: no cluster manager started this process (srun, mpirun or a TPU "
                "pod). On one machine, use launch.local. Elsewhere, give --coordinator_address, "
                "--num_processes and --process_id."
            )
    if None in given:
        raise InputError(
            "--coordinator_address, --num_processes and --process_id: give all three or none of "
            "them"
        )
    place = rendezvous.Place(*given)
    if not 0 <= place.process_id < place.num_processes:
        raise InputError(
            f"--process_id={place.process_id}: must be from 0 to {place.num_processes - 1}, "
            f"because --num_processes={place.num_processes}"
        )
    host, _, port = place.address.rpartition(":")
    if not (host and port.isdecimal() and port.isascii() and 0 < int(port) < 2**16):
        raise InputError(
            f"--coordinator_address={place.address}: must be HOST:PORT, with a port from 1 to 65535"
        )
    return place, local_device_ids


def _ask_cluster(timeout: float) -> Sequence:
    """Returns address, number of processes, own number and local GPUs; None for the unknown.

    Raises InputError if the tasks of a Slurm job cannot divide their GPUs.
    """
    import jax  # noqa: F401  the next import needs it

    # `jax.distributed.initialize` asks the same classes. They have no public names.
    from jax._src.clusters import ClusterEnv, OmpiCluster, SlurmCluster

    unset = [None] * 5
    *place, local_device_ids = ClusterEnv.auto_detect_unset_distributed_params(
        *unset, round(timeout)
    )
    is_slurm = SlurmCluster.is_env_present() and not OmpiCluster.is_env_present()
    if local_device_ids is not None and is_slurm:
        local_device_ids = slurm.local_devices(os.environ)
    return [*place, local_device_ids]


def _end_program(error: BaseException) -> NoReturn:
    """Ends this process at once.

    An ordinary exit would hang: JAX waits for all other processes, and they may wait for this one.
    """
    code = 1
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else code
        else:
            # The cause may be that another process ended. Within this second, the roll notices
            # it, names that process and ends this one.
            time.sleep(1.0)
            if isinstance(error, InputError):
                code = 2
                print(f"error: {error}", file=sys.stderr)
            else:
                traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@contextlib.contextmanager
def notice_sigterm() -> Iterator[None]:
    """Inside, SIGTERM does not end the program. It makes `sigterm_noticed` true.

    A second SIGTERM ends the program. Signals within one second count as one, because some
    senders, such as `timeout`, send each signal twice. Nested calls do nothing, nor do calls in
    another thread than the main one, which alone can handle signals.
    """
    if _noticing.is_set() or threading.current_thread() is not threading.main_thread():
        yield
        return
    noted_at = math.inf

    def note(*_) -> None:
        nonlocal noted_at
        if time.monotonic() > noted_at + 1:
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)
        noted_at = min(noted_at, time.monotonic())
        note_sigterm()

    before = signal.signal(signal.SIGTERM, note)
    _noticing.set()
    try:
        yield
    finally:
        _noticing.clear()
        signal.signal(signal.SIGTERM, before)


def note_sigterm(*_: object) -> None:
    """A handler for SIGTERM that treats repeated signals as one. See `notice_sigterm`."""
    _sigterm.set()


def sigterm_noticed() -> bool:
    """Whether this process has noticed a SIGTERM. See `notice_sigterm`."""
    return _sigterm.is_set()


def must_stop(deadline: float) -> bool:
    """Whether the run must stop: `deadline` (of time.monotonic()) has passed, or SIGTERM came.

    All processes get the same answer.
    """
    return agreed(time.monotonic() >= deadline or sigterm_noticed())


class OutOfTime(Exception):
    """The run must stop: see `stop_if_late`."""


def stop_if_late(deadline: float) -> None:
    """Raises OutOfTime if the run `must_stop`."""
    if must_stop(deadline):
        raise OutOfTime


def share_of_cores() -> int:
    """The number of cores for this process: its own, divided by the processes that share them.

    Every process must call it, because each call waits for all of them.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    cores = provenance.granted_cores()
    if jax.process_count() == 1:
        return cores
    mine = zlib.crc32(provenance.place().encode())
    places = multihost_utils.process_allgather(np.uint32(mine))
    return max(1, cores // int((places == mine).sum()))


def largest(value: float) -> float:
    """The largest `value` of all processes. Every process must call it: see `agreed`."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


def agreed(value: bool) -> bool:
    """Whether `value` is true in any process of the run.

    Use it where processes may disagree, for instance on whether time is up. Every process must
    call it equally often, because each call waits for all of them.
    """
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(int(value)).any())
