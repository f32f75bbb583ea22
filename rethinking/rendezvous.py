"""The roll of a run's processes: who has joined, who is missing and who is lost.

Every process keeps a TCP connection to process 0. A connection closes when its process ends,
however it ends, so that the others notice at once.

JAX has a service for this. But if a process is missing, or process 0 is lost, that service notices
late. It then ends the others with a stack trace that names no process. So the roll is called first.
JAX's service then takes over the port, and the connections stay open.
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

# Exit code of a process that ends because another one was missing or lost. It is EX_UNAVAILABLE
# of BSD's sysexits.h. The launcher looks for the cause in the other processes.
PEER_LOST = 69
# A process counts as lost after this silence, even if its connection is open: the process, its
# host or the network hangs.
SILENCE_SECONDS = 40.0
# Time between two signs of life.
BEAT_SECONDS = 5.0
# Time to connect, and time for a new connection to say its number.
_GREETING_SECONDS = 5.0


class RendezvousError(Exception):
    """Some processes of a run did not join. The message names them."""


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
    """Returns once all processes of the run have called this.

    From then on, this process ends when another one is lost.

    Raises RendezvousError, in all processes that joined, if others do not join within `timeout`
    seconds or if two have the same number.
    """
    peers = _report(place, timeout) if place.process_id else _gather(place, timeout)
    return Roll(place, peers)


class Roll:
    """Watches the other processes: process 0 watches all of them, and they watch process 0."""

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
        """Tells the others that this process is done, so that they do not count it as lost.

        Waits for their answer. A process that ends with unread messages resets its connections,
        and its own last message may then get lost.
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
                silence = f"{name} was lost: it sent nothing for {SILENCE_SECONDS:g} s"
                message = {"lost": silence}
        if "lost" in message and not self._left:
            self._end(message["lost"])
        peer.say_goodbye()

    def _end(self, lost: str) -> NoReturn:
        # Only the first loss is reported, because it is the cause of all others.
        with self._lock:
            for peer in self._peers:
                peer.tell(lost=lost)
            text = (
                f"error: {lost}, so process {self._place.process_id} ends too. Read its last "
                "lines to find the cause. The same command continues from the last checkpoint.\n"
            )
            os.write(2, text.encode())
            # The main thread may wait for the lost process inside XLA, where Python cannot
            # interrupt it.
            os._exit(PEER_LOST)


class _Peer:
    """A connection to another process. A message is one line with a JSON object."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._lines = connection.makefile(encoding="utf-8")
        self.process_id, self.host = 0, "?"

    def tell(self, **message: Any) -> None:
        """Sends a message. Does nothing if the other process is gone."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """Returns the next message, or None if the other process has closed the connection.

        Raises OSError if none comes within `timeout` seconds, ValueError if it is not a message.
        """
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
        """Says that this process is done and will send nothing more."""
        self.tell(done=True)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection."""
        self._lines.close()
        self._connection.close()


def _gather(place: Place, timeout: float) -> list[_Peer]:
    """Process 0's part: returns the connections to all others, once they have all joined.

    Tells them to begin, or why the run cannot begin.
    """
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
                    f"{_named(missing)} of {place.num_processes} did not connect to "
                    f"{place.address} within {timeout:g} s ({_named({0, *peers})} did). Read "
                    "their output, or raise --rendezvous_timeout.",
                )
            if peer is None:
                continue
            if peer.process_id not in missing:
                _refuse(
                    peers | {-1: peer},
                    f"process {peer.process_id} on {peer.host} cannot join: another process has "
                    f"this number, or it is not below {place.num_processes}. Give each of the "
                    f"{place.num_processes} processes its own number, from 0.",
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
            f"process 0 cannot listen on port {port} of {socket.gethostname()}: "
            f"{error.strerror}. Choose another port, or end the program that uses it."
        ) from None


def _greet(server: socket.socket) -> _Peer | None:
    """Accepts a connection and returns it with its process's number.

    Returns None for a connection from another program.
    """
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
    """The other processes' part: returns the connection to process 0, once all have joined."""
    deadline = time.monotonic() + timeout
    while True:
        # OSError: process 0 does not listen yet. ValueError: another program uses the port.
        with contextlib.suppress(OSError, ValueError):
            peer = _Peer(socket.create_connection(place.host_and_port, timeout=_GREETING_SECONDS))
            peer.tell(process_id=place.process_id, host=socket.gethostname())
            # If process 0 started later than this process, it waits longer for the rest.
            answer = peer.hear(timeout + 2 * _GREETING_SECONDS)
            if answer and "error" in answer:
                raise RendezvousError(answer["error"])
            if answer:
                peer.host = answer["host"]
                return [peer]
        if time.monotonic() > deadline:
            raise RendezvousError(
                f"process 0 of {place.num_processes} did not answer process {place.process_id} at "
                f"{place.address} within {timeout:g} s. Read its output, or raise "
                "--rendezvous_timeout."
            )
        time.sleep(0.2)


def _named(process_ids: Collection[int]) -> str:
    """Returns "process 2" or "processes 0, 1 and 3"."""
    *most, last = map(str, sorted(process_ids))
    if most:
        return f"processes {', '.join(most)} and {last}"
    return f"process {last}"
