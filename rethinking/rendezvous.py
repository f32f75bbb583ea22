"""Who takes part in a run of several processes, who does not come, and who is lost: a TCP connection from each to 0.

JAX has a service of its own for this. But when some processes do not come, or process 0 is lost, it ends the others
with a stack trace that names nobody, and it is slow to notice. So the roll is called first, on the port that JAX's
service takes over afterwards, and the connections stay: they close when a process ends, however it ends.
"""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Collection
from typing import Any, NoReturn

# Exit code of a process that ends because another one was missing or lost: what went wrong, went wrong there.
PEER_LOST = 69  # EX_UNAVAILABLE of BSD's sysexits.h
# A process that says nothing for so long, though its connection is open, is lost: it, its host or the network hangs.
SILENCE_SECONDS = 40.0
BEAT_SECONDS = 5.0  # between two signs of life
_GREETING_SECONDS = 5.0  # for a process to say its number, or to be reached


class RendezvousError(Exception):
    """The processes of a run did not find each other; the message names those that are missing."""


@dataclasses.dataclass(frozen=True)
class Place:
    """One process's place in a run of several."""

    address: str  # HOST:PORT where process 0 listens
    num_processes: int
    process_id: int  # 0, 1, ..., num_processes - 1

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The two parts of `address`."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


def call_roll(place: Place, timeout: float) -> "Roll":
    """Returns once all processes of the run have called this. From then on this process ends when another is lost.

    Raises RendezvousError in all that came if some did not within `timeout` seconds, or if two have the same number.
    """
    peers = _report(place, timeout) if place.process_id else _gather(place, timeout)
    return Roll(place, peers)


class Roll:
    """The processes that are known to be alive: all others for process 0, process 0 for all others."""

    def __init__(self, place: Place, peers: list["_Peer"]):
        self._place, self._peers = place, peers
        self._lock = threading.Lock()
        self._left = False
        self._watchers = [
            threading.Thread(target=self._watch, args=(peer,), daemon=True) for peer in peers
        ]
        for thread in [*self._watchers, threading.Thread(target=self._beat, daemon=True)]:
            thread.start()

    def leave(self) -> None:
        """Says that this process has done its part: when it ends now, it is not lost.

        Waits until the others have heard it: a process that ends with something left unread resets its connections, and
        what it said last may never be read.
        """
        self._left = True
        for peer in self._peers:
            peer.say_goodbye()
        deadline = time.monotonic() + _GREETING_SECONDS
        for thread in self._watchers:
            thread.join(max(deadline - time.monotonic(), 0))

    def _beat(self) -> None:
        while True:
            for peer in self._peers:
                peer.tell(alive=True)
            time.sleep(BEAT_SECONDS)

    def _watch(self, peer: "_Peer") -> None:
        message = {"alive": True}
        name = f"process {peer.process_id} of {self._place.num_processes} (on {peer.host})"
        while message == {"alive": True}:
            try:
                message = peer.hear(SILENCE_SECONDS) or {"lost": f"{name} failed or was killed"}
            except (OSError, ValueError):
                message = {
                    "lost": f"{name} was lost: nothing was heard of it for {SILENCE_SECONDS:g} s"
                }
        if "lost" in message and not self._left:
            self._end(message["lost"])
        peer.say_goodbye()

    def _end(self, lost: str) -> NoReturn:
        with self._lock:  # for good: the first loss is the cause of all others
            for peer in self._peers:
                peer.tell(lost=lost)
            text = (
                f"error: {lost}, so process {self._place.process_id} ends too. Look at what it said last; the same "
                "command continues from the last checkpoint.\n"
            )
            os.write(2, text.encode())
            os._exit(
                PEER_LOST
            )  # the main thread may be waiting for the lost process, out of Python's reach


class _Peer:
    """A connection to another process, over which the two exchange JSON, one object a line."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._lines = connection.makefile(encoding="utf-8")
        self.process_id, self.host = 0, "?"

    def tell(self, **message: Any) -> None:
        """Sends a message, or nothing to one that is gone."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None if the other end was closed. Raises OSError or ValueError for anything else."""
        self._connection.settimeout(timeout)
        try:
            line = self._lines.readline()
        except ConnectionError:
            return None
        message = json.loads(line) if line else None
        if not isinstance(message, dict | None):
            raise ValueError(f"not a message: {line!r}")
        return message

    def say_goodbye(self) -> None:
        """Says that this process is done, and nothing after that."""
        self.tell(done=True)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends the connection."""
        self._lines.close()
        self._connection.close()


def _gather(place: Place, timeout: float) -> list[_Peer]:
    """Process 0's part: waits for the others, and tells them all to begin or why not."""
    deadline = time.monotonic() + timeout
    peers: dict[int, _Peer] = {}
    with _listen(place) as server:
        while missing := set(range(1, place.num_processes)) - peers.keys():
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                peer = _greet(server)
            except TimeoutError:
                _refuse(
                    peers,
                    f"{_named(missing)} of {place.num_processes} did not come to {place.address} within "
                    f"{timeout:g} s ({_named({0, *peers})} did). Look at what they say, or raise "
                    "--rendezvous_timeout.",
                )
            if peer is None:
                continue
            if peer.process_id not in missing:
                _refuse(
                    peers | {-1: peer},
                    f"{peer.host} has a process {peer.process_id} that is one too many: there "
                    f"are {place.num_processes}, from 0, each of them once.",
                )
            peers[peer.process_id] = peer
    for peer in peers.values():
        peer.tell(begin=True, host=socket.gethostname())
    return list(peers.values())


def _listen(place: Place) -> socket.socket:
    port = place.host_and_port[1]
    try:
        return socket.create_server(("", port), backlog=place.num_processes)
    except OSError as error:
        raise RendezvousError(
            f"process 0 cannot listen on port {port} of {socket.gethostname()}: {error.strerror}. "
            "Choose another port, or end what uses it."
        ) from None


def _greet(server: socket.socket) -> _Peer | None:
    """The next process to come, with its number; None for a connection from something else."""
    connection, _ = server.accept()
    peer = _Peer(connection)
    try:
        hello = peer.hear(_GREETING_SECONDS) or {}
        peer.process_id, peer.host = int(hello["process_id"]), str(hello["host"])
    except (OSError, ValueError, KeyError, TypeError):
        peer.close()
        return None
    return peer


def _refuse(peers: dict[int, _Peer], reason: str) -> NoReturn:
    for peer in peers.values():
        peer.tell(error=reason)
    raise RendezvousError(reason)


def _report(place: Place, timeout: float) -> list[_Peer]:
    """The other processes' part: says to process 0 that this one is here, and waits until all are."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(
            OSError, ValueError
        ):  # not there yet, or another program on that port
            peer = _Peer(socket.create_connection(place.host_and_port, timeout=_GREETING_SECONDS))
            peer.tell(process_id=place.process_id, host=socket.gethostname())
            # Process 0 may have started later than this one, and then waits longer for the rest.
            answer = peer.hear(timeout + 2 * _GREETING_SECONDS)
            if answer and "error" in answer:
                raise RendezvousError(answer["error"])
            if answer:
                peer.host = answer["host"]
                return [peer]
        if time.monotonic() > deadline:
            raise RendezvousError(
                f"process 0 of {place.num_processes} did not answer process {place.process_id} at "
                f"{place.address} within {timeout:g} s. Look at what it says, or raise "
                "--rendezvous_timeout."
            )
        time.sleep(0.2)


def _named(process_ids: Collection[int]) -> str:
    """ "process 2" or "processes 0, 1 and 3"."""
    *most, last = map(str, sorted(process_ids))
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"
