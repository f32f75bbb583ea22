"""The processes of one run on this machine: their output, their signals, and their end."""

import collections
import contextlib
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from rethinking import rendezvous

# The number of lines of a failed process that are shown again.
_LAST_LINES = 20
_screen = threading.Lock()


class Process:
    """One process of the run. It shows each line of output at once, with the process's number.

    When the process ends, this object is put into the queue `ended`.
    """

    def __init__(
        self,
        number: int,
        command: list[str],
        environment: Mapping[str, str],
        ended: queue.SimpleQueue,
    ):
        self.number = number
        self.last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._sent: set[int] = set()
        self._process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # A group of its own, because a terminal sends Ctrl-C to the launcher's whole group.
            process_group=0,
        )
        streams = (self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)
        self._readers = [
            threading.Thread(target=self._show, args=pair, daemon=True) for pair in streams
        ]
        waiter = threading.Thread(target=self._wait, args=(ended,), daemon=True)
        for thread in [*self._readers, waiter]:
            thread.start()

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs, negative if a signal ended it."""
        return self._process.poll()

    @property
    def was_ended(self) -> bool:
        """Whether another process caused its end: we ended it, or it lost the other process."""
        return self.exit_code == rendezvous.PEER_LOST or -(self.exit_code or 0) in self._sent

    def send(self, number: int) -> None:
        """Sends a signal. Does nothing if the process has ended."""
        self._sent.add(number)
        self._process.send_signal(number)

    def drain(self) -> None:
        """Returns when all output of an ended process has been shown."""
        for reader in self._readers:
            # With a limit, because a child of the process may live on and keep the stream open.
            reader.join(timeout=5.0)

    def _show(self, stream: TextIO, screen: TextIO) -> None:
        for line in stream:
            if screen is sys.stderr:
                self.last_lines.append(line)
            # OSError: the screen is closed. The run goes on.
            with _screen, contextlib.suppress(OSError):
                print(f"[{self.number}] {line}", end="", file=screen, flush=True)

    def _wait(self, ended: queue.SimpleQueue) -> None:
        self._process.wait()
        ended.put(self)


def pass_on_signals(processes: list[Process]) -> None:
    """Passes on SIGTERM and Ctrl-C: the first time as SIGTERM, the second time as SIGKILL.

    Signals within one second count as one, because some senders, such as `timeout`, send each
    signal twice.
    """
    first = math.inf

    def pass_on(*_) -> None:
        nonlocal first
        number = signal.SIGKILL if time.monotonic() > first + 1 else signal.SIGTERM
        first = min(first, time.monotonic())
        for process in processes:
            process.send(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)


def await_all(processes: list[Process], ended: queue.SimpleQueue, grace: float) -> list[Process]:
    """Waits until all processes have ended. Returns them in the order in which they ended.

    If one fails, the others get SIGTERM. Those that still run `grace` seconds later get SIGKILL.
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


def first_failure(order: list[Process]) -> Process | None:
    """The first process that failed by itself; None if all succeeded.

    If every failed process was ended because of another one, it is the first of these.
    """
    failed = [process for process in order if process.exit_code]
    return min(failed, key=lambda process: process.was_ended, default=None)


def report(process: Process, num_processes: int) -> None:
    """Prints which process failed, how, and its last lines."""
    code = process.exit_code
    how = f"with exit code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
    said = "Its last lines:" if process.last_lines else "It printed nothing on stderr."
    print(
        f"\nerror: process {process.number} of {num_processes} failed first, {how}. "
        f"The others were ended. {said}",
        file=sys.stderr,
    )
    for line in process.last_lines:
        print(f"    {line}", end="", file=sys.stderr)
