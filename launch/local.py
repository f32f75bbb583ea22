"""Makes one run in several processes on this machine, each with its own devices.

    python -m launch.local --num_processes=N [--devices_per_process=K] -- ARGUMENTS OF rethinking.main

Visible GPUs are dealt out evenly. With --devices_per_process each process has K fake CPU devices instead, which is how
a run on several hosts is tried out on one. What a process prints is shown with its number in front.

When a process fails, the others are ended, its last lines are shown once more, and its exit code is this program's.
SIGTERM and Ctrl-C are passed on as SIGTERM, so that the run is saved and stops; the second time they kill it.
"""

import collections
import contextlib
import math
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from absl import app, flags

from rethinking import cli, rendezvous
from rethinking.errors import InputError

_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes make the run.", lower_bound=1
)
_DEVICES = flags.DEFINE_integer(
    "devices_per_process", None, "Fake CPU devices of each process.", lower_bound=1
)
_GRACE = flags.DEFINE_float(
    "grace_seconds", 10.0, "Of a process after another has failed, before it is killed."
)
_MODULE = flags.DEFINE_string(
    "module", "rethinking.main", "The program that is started; it has main's flags."
)

_LAST_LINES = 20  # of a failed process, shown once more
_screen = threading.Lock()


class Process:
    """One process of the run, whose output is shown as it comes; it joins the queue `ended` when it has ended."""

    def __init__(
        self,
        number: int,
        command: list[str],
        environment: Mapping[str, str],
        ended: queue.SimpleQueue,
    ):
        self.number, self.last_lines = number, collections.deque(maxlen=_LAST_LINES)
        self._sent: set[int] = set()
        self._process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,  # of its own, since the terminal sends Ctrl-C to this program's whole group
        )
        streams = (self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)
        self._readers = [
            threading.Thread(target=self._show, args=pair, daemon=True) for pair in streams
        ]
        for thread in (
            *self._readers,
            threading.Thread(target=self._await, args=(ended,), daemon=True),
        ):
            thread.start()

    @property
    def exit_code(self) -> int | None:
        """Negative after a signal, None while it runs."""
        return self._process.poll()

    @property
    def was_ended(self) -> bool:
        """Whether it ended because another one did: by a signal from here, or since it missed the other."""
        return self.exit_code == rendezvous.PEER_LOST or -(self.exit_code or 0) in self._sent

    def send(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        self._sent.add(number)
        self._process.send_signal(number)

    def drain(self) -> None:
        """Returns when all that it printed is shown."""
        for reader in self._readers:
            reader.join(timeout=5.0)  # a child of its own may live on and hold the stream open

    def _show(self, stream: TextIO, screen: TextIO) -> None:
        for line in stream:
            if screen is sys.stderr:
                self.last_lines.append(line)
            with _screen, contextlib.suppress(OSError):  # nobody looks any more; the run goes on
                print(f"[{self.number}] {line}", end="", file=screen, flush=True)

    def _await(self, ended: queue.SimpleQueue) -> None:
        self._process.wait()
        ended.put(self)


def command(module: str, arguments: list[str], place: rendezvous.Place) -> list[str]:
    """What starts the process that has this place."""
    return [
        sys.executable,
        "-u",
        "-m",
        module,
        *arguments,
        "--distributed",
        f"--coordinator_address={place.address}",
        f"--num_processes={place.num_processes}",
        f"--process_id={place.process_id}",
    ]


def deal_devices(
    num_processes: int, fake: int | None, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """The environment variables that give each process its devices: `fake` CPU devices, or its share of the GPUs.

    Raises InputError if there are GPUs that cannot be dealt out evenly.
    """
    if fake:
        count = f"{environment.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={fake}".strip()
        return [{"JAX_PLATFORMS": "cpu", "XLA_FLAGS": count}] * num_processes
    gpus = [] if environment.get("JAX_PLATFORMS") == "cpu" else _visible_gpus(environment)
    if len(gpus) % num_processes:
        raise InputError(
            f"--num_processes={num_processes}: the {len(gpus)} visible GPUs ({','.join(gpus)}) cannot be "
            "dealt out evenly. Choose another number, or set CUDA_VISIBLE_DEVICES."
        )
    share = len(gpus) // num_processes
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(gpus[number * share : (number + 1) * share])}
        if gpus
        else {}
        for number in range(num_processes)
    ]


def _visible_gpus(environment: Mapping[str, str]) -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [gpu for gpu in environment["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True)
    return [] if said.returncode else said.stdout.split()  # an error's words are no GPUs


def await_all(processes: list[Process], ended: queue.SimpleQueue, grace: float) -> list[Process]:
    """Waits for all processes, which are returned in the order in which they ended.

    When one has failed, the others get SIGTERM, and `grace` seconds later SIGKILL.
    """
    order: list[Process] = []
    failed = killed = False
    while len(order) < len(processes):
        try:
            process = ended.get(timeout=grace if failed and not killed else None)
        except queue.Empty:
            killed = True
            for process in processes:
                process.send(signal.SIGKILL)
            continue
        order.append(process)
        if process.exit_code and not failed:
            failed = True
            for other in processes:
                other.send(signal.SIGTERM)
    return order


def _pass_on_signals(processes: list[Process]) -> None:
    """The first SIGTERM or Ctrl-C becomes SIGTERM for all processes; one that comes a second later or more becomes
    SIGKILL: `timeout`, for one, sends the first one twice."""
    first = math.inf

    def pass_on(*_) -> None:
        nonlocal first
        number = signal.SIGKILL if time.time() > first + 1 else signal.SIGTERM
        first = min(first, time.time())
        for process in processes:
            process.send(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)


def _first_failure(order: list[Process]) -> Process | None:
    """The process that failed by itself first; if there is none, the one that was the first to miss another."""
    return min(
        (process for process in order if process.exit_code),
        key=lambda process: process.was_ended,
        default=None,
    )


def _report(process: Process, num_processes: int) -> None:
    code = process.exit_code
    how = f"with exit code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
    said = "Its last lines:\n" if process.last_lines else "It said nothing."
    print(
        f"\nerror: process {process.number} of {num_processes} failed first, {how}; the others were ended. {said}"
        + "".join(f"    {line}" for line in process.last_lines),
        file=sys.stderr,
    )


def main(arguments: list[str]) -> None:
    """Starts the processes that the flags describe, and ends as they do."""
    total = _NUM_PROCESSES.value
    try:
        environments = deal_devices(total, _DEVICES.value, os.environ)
    except InputError as error:
        cli.fail(error)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    ended: queue.SimpleQueue = queue.SimpleQueue()
    processes: list[Process] = []
    _pass_on_signals(processes)
    for number, environment in enumerate(environments):
        line = command(_MODULE.value, arguments, rendezvous.Place(address, total, number))
        processes.append(Process(number, line, environment, ended))
    order = await_all(processes, ended, _GRACE.value)
    for process in processes:
        process.drain()
    if first := _first_failure(order):
        _report(first, total)
        sys.exit(first.exit_code if first.exit_code > 0 else 128 - first.exit_code)


if __name__ == "__main__":
    app.run(
        main, flags_parser=lambda argv: cli.parse_launcher_flags(argv, required=("num_processes",))
    )
