"""The errors for damaged files, for files that the system cannot read, and for full disks."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from rethinking.errors import InputError

# The text of a failed system call, as the ArrayRecord reader reports it.
_SYSTEM_CALL = re.compile(r"\b\w+\(\) failed: ([^;\[]+)")
# A name that leads nowhere says nothing about the state of the system.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# Libraries may report these by their text alone.
_TEXTS = [
    os.strerror(code)
    for code in (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
]


class BadRecord(InputError):
    """Raised for a record that cannot be used. Other records of its file may be intact."""


def damaged(file: pathlib.Path, cause: str) -> InputError:
    """The error to raise for a damaged file."""
    return InputError(
        f"{file} is damaged ({cause}). Delete its folder, then prepare the data set again."
    )


def unreadable(file: pathlib.Path, cause: str) -> InputError:
    """The error to raise for a file that the system could not read. The file may be intact."""
    return InputError(
        f"{file} cannot be read: {cause}. The file may be intact. Check the disk, the "
        "permissions and the limit on open files (ulimit -n). Then run the same command again."
    )


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Raises `unreadable` for an OSError inside, with the file that it names, else with `path`."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else path
        raise unreadable(pathlib.Path(named), error.strerror or str(error)) from error


def system_cause(error: BaseException | None) -> str | None:
    """The system's message if a failed system call led to `error`; None for other causes.

    Raises MemoryError if that is the cause.
    """
    while error is not None:
        if isinstance(error, MemoryError):
            raise error
        if isinstance(error, OSError) and error.errno and error.errno not in _NOT_THERE:
            return os.strerror(error.errno)
        text = str(error)
        found = _SYSTEM_CALL.search(text)
        if found:
            return found[1].strip()
        named = [cause for cause in _TEXTS if cause in text]
        if named:
            return named[0]
        error = error.__cause__ or error.__context__
    return None


def require_space(data_dir: pathlib.Path, num_bytes: float | int, what: str) -> None:
    """Raises InputError if the disk of `data_dir` has less room than `num_bytes`."""
    there = data_dir
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise InputError(
            f"{what} takes {num_bytes / 1e9:,.1f} GB in {data_dir}, but the disk has only "
            f"{free / 1e9:,.1f} GB left. Free some space, or choose a folder on another disk by "
            "--data_dir."
        )
