"""Disks that are full, or that cannot be read or written."""

import contextlib
import errno
import gc
import logging
import os
import shutil
from collections.abc import Iterator

from etils import epath

from rethinking.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors of a disk that come without the name of a file: a defect, a remount, a lost server.
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)


@contextlib.contextmanager
def explain_disk_errors(workdir: str | os.PathLike) -> Iterator[None]:
    """Turns errors of the disk of a run, whoever raises them, into InputErrors of one line."""
    try:
        yield
        return
    except InputError:
        raise
    except Exception as error:
        text = _explain(error, os.fspath(workdir))
        if text is None:
            raise
    # Orbax's tasks that failed as well would each print a traceback when they are deleted.
    with quiet("asyncio"):
        gc.collect()
    raise InputError(f"{text} Then the same command continues.")


def _explain(error: Exception, workdir: str) -> str | None:
    """What is wrong with the disk, and what to do; None if the error is about something else."""
    file = getattr(error, "filename", None)
    if is_full(error):
        return f"the disk of {file or workdir} is full. Free some space."
    if not isinstance(error, OSError):
        return None
    if file is None and error.errno in _BROKEN:
        return f"the disk of {workdir} fails: {error.strerror}. Repair it."
    if isinstance(file, str) and os.path.abspath(file).startswith(os.path.abspath(workdir)):
        return f"{file} cannot be read or written: {error.strerror}. Correct that."
    return None


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # TensorStore, under Orbax, has the system's text but not its number.
        text = str(error)
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def require_space(path: epath.Path, num_bytes: int) -> None:
    """Raises the error of a full disk if fewer bytes are free on the disk of `path`."""
    is_local = "://" not in os.fspath(path)
    if is_local and shutil.disk_usage(path).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keeps a logger from showing anything."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
