"""A connection to another process of the run, and the messages that go over it.

Any program may connect to the port of process 0: a message is therefore checked, has a greatest
length, and must come whole within a time.
"""

import contextlib
import json
import os
import select
import socket
import time
from typing import Any

# Bytes of a message. The longest one names all processes that are missing.
LONGEST = 2**16
# The variable of a word that the processes of a run know, and other programs do not.
# `launch.local` sets it. Without it, the word is empty.
RUN_WORD = "RETHINKING_RUN_WORD"


def run_word() -> str:
    """What the processes of this run tell each other, so that they know their own."""
    return os.environ.get(RUN_WORD, "")


class Peer:
    """A connection to another process. A message is one line with a JSON object."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self._unread = b""
        self.process_id, self.host = 0, "?"

    def tell(self, **message: Any) -> None:
        """Sends a message. Does nothing if the other process is gone."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """Returns the next message, or None if the other process has closed the connection.

        Raises OSError if no whole message comes within `timeout` seconds, ValueError if what comes
        is not a message.
        """
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not self._has_news(left):
                raise TimeoutError
            if not self.receive():
                return None
        return self.next_message()

    def receive(self) -> bool:
        """Reads what has arrived. Returns False if the other process has closed the connection.

        Raises ValueError if it is longer than a message.
        """
        try:
            data = self.connection.recv(LONGEST)
        except ConnectionError:
            return False
        self._unread += data
        if b"\n" not in self._unread[:LONGEST] and len(self._unread) > LONGEST:
            raise ValueError(f"a message of more than {LONGEST} bytes")
        return bool(data)

    def next_message(self) -> dict[str, Any] | None:
        """Returns the next whole message that has arrived, or None if there is none.

        Raises ValueError if what has arrived is not a message.
        """
        line, end, rest = self._unread.partition(b"\n")
        if not end:
            return None
        self._unread = rest
        try:
            message = json.loads(line)
        except RecursionError:
            raise ValueError("a message that is nested too deeply") from None
        if not isinstance(message, dict):
            raise ValueError(f"not a message: {line[:100]!r}")
        return message

    def is_gone(self) -> bool:
        """Whether the other process has closed the connection."""
        if not self._has_news(0.0):
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def say_goodbye(self) -> None:
        """Says that this process is done and will send nothing more."""
        self.tell(done=True)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()

    def _has_news(self, timeout: float) -> bool:
        # Not with the timeout of the socket: another thread may be sending.
        news = select.poll()
        news.register(self.connection, select.POLLIN)
        return bool(news.poll(min(timeout, 86400.0) * 1000))
