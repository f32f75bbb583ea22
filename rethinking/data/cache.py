"""Decoded images on disk, for later runs: written durably, and checked whenever they are read.

A cache is a folder with an .npy file for each array and `digests.json`, the CRC-32 of each file. A
CRC-32 finds every change of a single bit, and misses one in four billion of the others. Checking
CIFAR10 (184 MB) takes 0.2 s; SHA-256 would take five times as long.

A new cache is written to a folder beside it, which is then renamed. The writer holds a lock on a
file in that folder. So an unlocked folder is left over from a killed run.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_LOG = logging.getLogger(__name__)
_DIGESTS, _LOCK = "digests.json", "lock"
# The name of a cache, then the eight characters of `tempfile.mkdtemp`.
_UNFINISHED = re.compile(r".+-[0-9a-f]{16}\.[a-z0-9_]{8}")
_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class _Unusable(Exception):
    """A cache that must be written again. Its message names the file and the reason."""


def read(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays in `folder`, mapped into memory; None if they must be decoded again.

    Warns, with the file's name, if a cache is there that cannot be used.
    """
    if not folder.is_dir():
        return None
    try:
        digests = _read_digests(folder / _DIGESTS)
        return {name: _read_array(folder / f"{name}.npy", digests) for name in _NAMES}
    except _Unusable as error:
        _LOG.warning("%s. The images are decoded again.", error)
    return None


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Keeps the arrays for `read`. If that is impossible, warns in one line."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(folder) as unfinished:
            digests = {}
            for name in _NAMES:
                with _durable(unfinished / f"{name}.npy") as file:
                    np.save(file, arrays[name])
                digests[f"{name}.npy"] = file.digest
            with _durable(unfinished / _DIGESTS) as file:
                file.write(json.dumps(digests, indent=1).encode())
            _sync(unfinished)
            # A folder that is there already could not be used.
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
            (folder / _LOCK).unlink(missing_ok=True)
            _sync(folder.parent)
    except OSError as error:
        # If the new name is taken, another process has just written the same arrays.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            _LOG.warning(
                "The decoded images cannot be kept for the next run: %s", _cause(error, folder)
            )


def remove_dead(root: pathlib.Path) -> None:
    """Removes the unfinished caches in `root` whose writers are gone."""
    for path in list(root.glob("*")):
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError), _locked(path) as locked:
                if locked:
                    shutil.rmtree(path, ignore_errors=True)


class _Digested:
    """A file that is open for writing, with the digest of what was written to it."""

    def __init__(self, file: BinaryIO):
        self._file, self.digest = file, 0

    def write(self, content: bytes) -> None:
        self.digest = zlib.crc32(content, self.digest)
        self._file.write(content)


@contextlib.contextmanager
def _durable(path: pathlib.Path) -> Iterator[_Digested]:
    """Opens a file for writing. At the end its content is on the disk."""
    with open(path, "wb") as file:
        yield _Digested(file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: pathlib.Path) -> None:
    """Brings the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _unfinished(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new, locked folder beside `folder`. At the end it is removed, if it is still there."""
    with contextlib.ExitStack() as stack:
        path = None
        while path is None:
            new = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            stack.callback(shutil.rmtree, new, ignore_errors=True)
            # Another process may have taken the folder for a dead one before it was locked.
            if stack.enter_context(_locked(new)) is not False:
                path = new
        yield path


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[bool | None]:
    """Tries to lock an unfinished cache until the end of the context.

    True: it is locked. False: another process has locked or removed it. None: this file system has
    no locks.
    """
    try:
        opened = os.open(folder / _LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(opened, folder / _LOCK)
    finally:
        os.close(opened)


def _lock(opened: int, path: pathlib.Path) -> bool | None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return None


def _read_digests(file: pathlib.Path) -> dict[str, int]:
    try:
        content = json.loads(file.read_bytes())
        return {f"{name}.npy": int(content[f"{name}.npy"]) for name in _NAMES}
    except FileNotFoundError:
        raise _Unusable(f"{file.parent} has no {_DIGESTS}: another version wrote it") from None
    except OSError as error:
        raise _Unusable(f"{file} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _Unusable(f"{file} is damaged") from error


def _read_array(file: pathlib.Path, digests: dict[str, int]) -> np.ndarray:
    try:
        if _digest(file) != digests[file.name]:
            raise _Unusable(f"{file} is damaged: its content is not what was written")
        return np.asarray(np.load(file, mmap_mode="r"))
    except OSError as error:
        raise _Unusable(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise _Unusable(f"{file} is damaged: {error}") from error


def _digest(file: pathlib.Path) -> int:
    """The CRC-32 of a file. Reads the file, because an unreadable mapped page kills the process."""
    digest = 0
    buffer = memoryview(bytearray(1 << 20))
    with open(file, "rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            digest = zlib.crc32(buffer[:count], digest)
    return digest


def _cause(error: OSError, folder: pathlib.Path) -> str:
    """Why `folder` could not be written, in one line that names the disk if it is full."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return str(error)
    disk = folder.absolute()
    while not disk.is_mount():
        disk = disk.parent
    return (
        f"no space is left on the disk {disk}, which holds {folder.parent}. Free some space, or "
        "set $XDG_CACHE_HOME."
    )
