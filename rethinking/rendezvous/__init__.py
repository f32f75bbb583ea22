"""The roll of a run's processes: who has joined, who is missing and who is lost.

Every process keeps a TCP connection to process 0. A connection closes when its process ends,
however it ends, so that the others notice at once.

JAX has a service for this. But if a process is missing, or process 0 is lost, that service notices
late. It then ends the others with a stack trace that names no process. So the roll is called first.
JAX's service then takes over the port, and the connections stay open.
"""

import contextlib
import dataclasses
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

from rethinking.rendezvous import entrance
from rethinking.rendezvous.peer import Peer, run_word

# Exit code of a process that ends because another one was missing or lost. It is EX_UNAVAILABLE
# of BSD's sysexits.h. The launcher looks for the cause in the other processes.
PEER_LOST = 69
# A process counts as lost after this silence, even if its connection is open: the process, its
# host or the network hangs.
SILENCE_SECONDS = 40.0
# Time between two signs of life.
BEAT_SECONDS = 5.0
# Time to connect, and time for a new connection to say its number.
GREETING_SECONDS = 5.0


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

    def __init__(self, place: Place, peers: list[Peer]):
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
        deadline = time.monotonic() + GREETING_SECONDS
        for thread in self._watchers:
            thread.join(max(deadline - time.monotonic(), 0))

    def _beat(self) -> None:
        while True:
            for peer in self._peers:
                peer.tell(alive=True)
            time.sleep(BEAT_SECONDS)

    def _watch(self, peer: Peer) -> None:
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


def _gather(place: Place, timeout: float) -> list[Peer]:
    """Process 0's part: returns the connections to all others, once they have all joined.

    Tells them to begin, or why the run cannot begin.
    """
    deadline = time.monotonic() + timeout
    peers: dict[int, Peer] = {}
    with _listen(place) as server, entrance.Entrance(server, GREETING_SECONDS) as door:
        while missing := set(range(1, place.num_processes)) - peers.keys():
            left = deadline - time.monotonic()
            if left <= 0:
                _refuse(
                    peers.values(),
                    f"{_named(missing)} of {place.num_processes} did not connect to "
                    f"{place.address} within {timeout:g} s ({_named({0, *peers})} did). Read "
                    "their output, or raise --rendezvous_timeout.",
                )
            for peer, hello in door.greet(left):
                if _is_of_this_run(hello):
                    _admit(peer, hello, place, peers)
                else:
                    peer.close()
    for peer in peers.values():
        peer.tell(begin=True, host=socket.gethostname(), word=run_word())
    return list(peers.values())


def _is_of_this_run(hello: dict[str, Any]) -> bool:
    """Whether a first message is that of a process of this run, and not of another program."""
    numbers = hello.get("process_id"), hello.get("num_processes")
    host = hello.get("host")
    return (
        hello.get("word") == run_word()
        and all(type(number) is int for number in numbers)
        and isinstance(host, str)
        and len(host) < 256
        and host.isprintable()
    )


def _admit(peer: Peer, hello: dict[str, Any], place: Place, peers: dict[int, Peer]) -> None:
    """Adds a process to `peers`.

    A process of a run of another size is told so, and this run goes on. Raises RendezvousError if
    two processes have one number.
    """
    peer.process_id, peer.host = hello["process_id"], hello["host"]
    if hello["num_processes"] != place.num_processes:
        peer.tell(
            error=f"process 0 at {place.address} has --num_processes={place.num_processes}, but "
            f"process {peer.process_id} on {peer.host} has {hello['num_processes']}. Give all "
            "processes of a run the same number, and each run its own address."
        )
        peer.close()
        return
    before = peers.get(peer.process_id)
    if before and before.is_gone():  # it was started again, or its connection broke
        before.close()
    elif before or not 0 < peer.process_id < place.num_processes:
        _refuse(
            [*peers.values(), peer],
            f"process {peer.process_id} on {peer.host} cannot join: another process has "
            f"this number, or it is not below {place.num_processes}. Give each of the "
            f"{place.num_processes} processes its own number, from 0.",
        )
    peers[peer.process_id] = peer


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(place: Place) -> socket.socket:
    host, port = place.host_and_port
    family = socket.AF_INET
    if not is_loopback(host):
        host = ""  # all networks, because this machine may not know its name in the run's network
    elif ":" in host:
        family = socket.AF_INET6
    backlog = max(128, place.num_processes)
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RendezvousError(
            f"process 0 cannot listen on port {port} of {socket.gethostname()}: "
            f"{reason}. Choose another port, or end the program that uses it."
        ) from None


def _refuse(peers: Iterable[Peer], reason: str) -> NoReturn:
    for peer in peers:
        peer.tell(error=reason)
    raise RendezvousError(reason)


def _report(place: Place, timeout: float) -> list[Peer]:
    """The other processes' part: returns the connection to process 0, once all have joined."""
    deadline = time.monotonic() + timeout
    while True:
        # OSError: process 0 does not listen yet. ValueError: another program uses the port.
        with contextlib.suppress(OSError, ValueError):
            connection = socket.create_connection(place.host_and_port, timeout=GREETING_SECONDS)
            with contextlib.ExitStack() as unless_joined:
                unless_joined.enter_context(connection)
                peer = Peer(connection)
                peer.tell(
                    process_id=place.process_id,
                    num_processes=place.num_processes,
                    host=socket.gethostname(),
                    word=run_word(),
                )
                # If process 0 started later than this process, it waits longer for the rest.
                answer = peer.hear(timeout + 2 * GREETING_SECONDS) or {}
                if isinstance(answer.get("error"), str):
                    raise RendezvousError(answer["error"])
                if answer.get("begin") and answer.get("word") == run_word():
                    peer.host = str(answer.get("host"))
                    unless_joined.pop_all()
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
