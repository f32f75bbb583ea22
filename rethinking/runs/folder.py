"""The folder of a run: its lock, and what a killed run leaves in it."""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from typing import TextIO

from etils import epath

from rethinking import failures
from rethinking.errors import InputError
from rethinking.runs import disk

_LOG = logging.getLogger(__name__)
# The folder, in that of the run, with the finished parts of a solve: see `kernels.kept`.
SOLVE = "solve"
# The lock file holds this text until the run has a result or ends.
_NO_RESULT = "no result yet\n"


class InUse(InputError):
    """Another process makes the run."""


class Folder:
    """A run's folder. With a `lock`, only this process writes to it."""

    def __init__(self, path: epath.Path, lock: TextIO | None = None):
        self.path, self._lock = path, lock
        # Whether the previous run was killed before it had a result.
        self.is_abandoned = lock is not None and has_begun(path) and not self.has_result()

    def require_there(self) -> None:
        """Raises InputError if somebody has removed or replaced the folder since it was locked."""
        if self._lock is None:
            is_there = (self.path / "config.json").exists()
        else:
            is_there = _is_same_file(self.path / ".lock", self._lock)
        if not is_there:
            raise InputError(
                f"--workdir={self.path} was removed or replaced while the run used it. What it "
                "held is lost. Start the run again."
            )

    def has_result(self) -> bool:
        """Whether a run has measured or saved anything here beyond its initial state."""
        metrics = self.path / "metrics.jsonl"
        if (self.path / "result.json").exists() or (metrics.exists() and metrics.read_bytes()):
            return True
        if (self.path / "checkpoints.unreadable").exists() or (self.path / SOLVE).exists():
            return True
        saved = self.path / "checkpoints"
        names = [child.name for child in saved.iterdir()] if saved.is_dir() else []
        return any(name.isdecimal() and int(name) > 0 for name in names)

    def clear(self) -> None:
        """Removes what a run without a result has begun, except for config.json."""
        self.remove_litter()
        for child in list(self.path.iterdir()):
            if child.name == "checkpoints":
                child.rmtree()
            elif child.name == "metrics.jsonl" or child.name.startswith("events.out.tfevents."):
                child.unlink()

    def remove_litter(self) -> None:
        """Removes what a killed process was writing. Nothing else writes it: the lock is ours."""
        if self._lock is None:
            return
        saved = self.path / "checkpoints"
        for child in saved.iterdir() if saved.is_dir() else ():
            if ".orbax-checkpoint-tmp" in child.name:
                shutil.rmtree(child, ignore_errors=True)
        for name in ("config.json", "metrics.jsonl", "result.json"):
            (self.path / f"{name}.partial").unlink(missing_ok=True)
        if (self.path / "result.json").exists():
            self.remove_solve()

    def remove_solve(self) -> None:
        """Removes the finished parts of a solve, which has its result now."""
        shutil.rmtree(self.path / SOLVE, ignore_errors=True)

    def note(self, has_result: bool) -> None:
        """Notes in the lock file whether the run can be continued or has left nothing."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):  # a full disk: the next file says so
            self._lock.truncate(0)
            self._lock.write("" if has_result else _NO_RESULT)
            self._lock.flush()


def has_begun(path: epath.Path) -> bool:
    """Whether a run began in the folder, and has neither ended nor measured anything yet."""
    if not is_local(path):
        return False
    try:
        return (path / ".lock").read_text() == _NO_RESULT
    except (FileNotFoundError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def hold(path: epath.Path) -> Iterator[Folder]:
    """Gives the folder at `path`, which is made if necessary, under its lock.

    A bucket has no lock. Raises InputError if the folder holds anything but a run, cannot be
    written, and InUse if another process holds the lock.
    """
    lock = None
    _require_utf8(path)
    try:
        _require_run_or_empty(path)
        path.mkdir(parents=True, exist_ok=True)
        if is_local(path):
            lock = open(path / ".lock", "a+")  # noqa: SIM115  held open as long as the run
    except ImportError as error:  # the package that reads buckets
        raise InputError(
            f"--workdir={path}: {error}. Install the extra `gcs`: pip install -e '.[gcs]'"
        ) from None
    except OSError as error:
        if disk.is_full(error):
            raise
        raise InputError(
            f"--workdir={path} cannot be written: {error.strerror or error}. Choose another."
        ) from None
    if lock is None:
        yield Folder(path)
        return
    with lock:
        yield Folder(path, lock if _lock(lock, path) else None)


def _require_utf8(path: epath.Path) -> None:
    """Raises InputError for a path that the library which writes checkpoints cannot take."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        shown = os.fspath(path).encode("ascii", "backslashreplace").decode()
        raise InputError(
            f"--workdir={shown}: the locale cannot read this name. Choose an ASCII name, or set "
            "LC_ALL=C.UTF-8."
        ) from None


def _lock(lock: TextIO, path: epath.Path) -> bool:
    """Whether this process has the lock; False on a file system without locks."""
    try:
        # The operating system frees the lock when the process ends, also when it is killed.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"--workdir={path} is in use by another process. Wait, or choose another."
        ) from None
    except OSError as error:
        _LOG.warning(
            "--workdir=%s is on a file system without locks (%s). Take care that no other process "
            "uses it.",
            path,
            error.strerror,
        )
        return False
    return True


def _require_run_or_empty(path: epath.Path) -> None:
    """Raises InputError if the folder holds anything but a run."""
    if not path.is_dir() or (path / "config.json").exists():
        return
    # A process that fails or is killed before it has a result leaves only these files.
    leftovers = (".lock", "config.json.partial", failures.LOG)
    if all(child.name in leftovers for child in path.iterdir()):
        return
    raise InputError(
        f"--workdir={path} is neither empty nor a run directory (no config.json). Choose another."
    )


def _is_same_file(path: epath.Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def is_local(path: epath.Path) -> bool:
    """Whether the path is on this machine, not in a bucket."""
    return "://" not in os.fspath(path)
