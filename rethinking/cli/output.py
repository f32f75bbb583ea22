"""A run outlives its terminal: a closed pipe, a lost SSH connection, a terminal that is gone.

Without this, the first line that cannot be printed would end a run of many hours.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from typing import Any

# The reader of a pipe has ended, the terminal is gone, or the file was closed.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class Lasting:
    """A text stream that takes every line, even if nobody can read it any more.

    What a full disk does not take is lost, and later lines are tried again.
    """

    def __init__(self, stream: io.TextIOBase):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes `text`, if that is possible. Returns its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._survive(error)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, if that is possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._survive(error)

    def _survive(self, error: OSError) -> None:
        if error.errno not in _GONE:
            return
        # Libraries in C, child processes and Python's own exit write there, too.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def outlive_terminal() -> None:
    """From now on, this process goes on when its terminal or the reader of its output is gone.

    It ignores SIGHUP, which a terminal sends when it closes. Child processes inherit that.
    """
    for number in range(3):  # a closed one would be the next file that the run opens
        with contextlib.suppress(OSError):
            _open_if_closed(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115  as long as the process
        if not isinstance(stream, Lasting):
            setattr(sys, name, Lasting(stream))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # The lowest number that is free is `number`, because all smaller ones are open.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
