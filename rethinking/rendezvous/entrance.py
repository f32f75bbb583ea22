"""Where processes join: process 0 accepts connections, and each says who it is.

Other programs may connect too, and say nothing, anything, or a byte a second. None of them keeps a
process of the run from joining: connections are heard at the same time, each for a few seconds.
"""

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Any

from rethinking.rendezvous.peer import Peer

# Connections that have not said who they are. The oldest one has to go if there are more.
MOST_WAITING = 200


class Entrance(contextlib.ExitStack):
    """The connections to a listening socket that have not sent their first message yet."""

    def __init__(self, server: socket.socket, seconds: float):
        super().__init__()
        self._server, self._seconds = server, seconds
        self._selector = self.enter_context(selectors.DefaultSelector())
        self._waiting: dict[Peer, float] = {}  # until when each may wait
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)
        self.callback(self._close)

    def greet(self, timeout: float) -> Iterator[tuple[Peer, dict[str, Any]]]:
        """Yields each connection that sends its first message, with this message.

        Returns after `timeout` seconds or sooner. Closes connections that send anything but a
        message, or nothing in time.
        """
        for key, _ in self._selector.select(min(timeout, 0.2)):
            if key.data is None:
                self._accept()
                continue
            peer = key.data
            try:
                is_open = peer.receive()
                hello = peer.next_message()
            except (OSError, ValueError):
                is_open, hello = False, None
            if hello is not None:
                self._forget(peer)
                # Only so long does a process that no longer reads keep the others waiting.
                peer.connection.settimeout(self._seconds)
                yield peer, hello
            elif not is_open:
                self._dismiss(peer)
        for peer, until in list(self._waiting.items()):
            if time.monotonic() > until:
                self._dismiss(peer)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:  # too many open files, or the other side has left
            self._dismiss_oldest()
            time.sleep(0.05)
            return
        connection.setblocking(False)
        peer = Peer(connection)
        self._waiting[peer] = time.monotonic() + self._seconds
        self._selector.register(connection, selectors.EVENT_READ, data=peer)
        if len(self._waiting) > MOST_WAITING:
            self._dismiss_oldest()

    def _dismiss_oldest(self) -> None:
        for peer in list(self._waiting)[:1]:
            self._dismiss(peer)

    def _dismiss(self, peer: Peer) -> None:
        self._forget(peer)
        peer.close()

    def _forget(self, peer: Peer) -> None:
        # The selector of this loop may still hold an event of a connection that was dismissed.
        if self._waiting.pop(peer, None) is not None:
            self._selector.unregister(peer.connection)

    def _close(self) -> None:
        for peer in list(self._waiting):
            self._dismiss(peer)
