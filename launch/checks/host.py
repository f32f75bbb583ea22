"""Checks the host: Python and packages, memory, disks, open files. It needs no JAX."""

import errno
import importlib.metadata
import os
import pathlib
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator

import psutil
from etils import epath
from packaging.requirements import Requirement

from launch.checks import FAIL, OK, Line
from rethinking import accelerator, failures, paths, provenance

GB = 1e9
# A run directory of the paper's networks holds a few checkpoints. Compiled programs take more.
_LEAST_DISK = 2 * GB
_LEAST_MEMORY = 4 * GB
# ImageNet has 1,024 + 64 files, and a run keeps those that it reads open.
_LEAST_FILES = 4096


def packages() -> Iterator[Line]:
    """Python, and the packages that this project needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Line(OK, "python", f"{version}, {sys.executable}")
    problems = []
    for text in _requirements():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = accelerator.installed(needed.name)
        if found is None:
            problems.append(f"{needed.name} is missing")
        elif not needed.specifier.contains(found, prereleases=True):
            problems.append(f"{needed.name} {found} is not {needed.specifier}")
    if problems:
        yield Line(FAIL, "packages", f"{', '.join(problems)}. Run: pip install -e .")
        return
    shown = [f"{name} {accelerator.installed(name)}" for name in ("jax", "jaxlib", "flax", "optax")]
    yield Line(OK, "packages", f"{', '.join(shown)}, and all others that are needed")


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("rethinking") or []
    except importlib.metadata.PackageNotFoundError:  # a copy of the source, not installed
        return ["jax>=0.10", "jaxlib", "flax", "optax"]


def memory() -> Line:
    """The free memory of the host."""
    host = psutil.virtual_memory()
    text = f"{host.available / GB:.1f} of {host.total / GB:.1f} GB are free"
    text += f", {provenance.usable_cores()} cores"
    if host.available < _LEAST_MEMORY:
        text += f". At least {_LEAST_MEMORY / GB:.0f} GB are needed: end other programs."
        return Line(FAIL, "memory", text)
    return Line(OK, "memory", text)


def disks(workdir: str) -> Iterator[Line]:
    """The folders that runs write: free space, and whether they can be written."""
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or paths.cache() / "rethinking"
    places = {
        workdir: "Give another --workdir",
        os.fspath(compiled): "Set $XDG_CACHE_HOME to a folder on another disk",
        tempfile.gettempdir(): "Set $TMPDIR to a folder on another disk",
    }
    for place, remedy in places.items():
        yield _bucket(place) if "://" in place else _disk(place, remedy)


def _disk(place: str, remedy: str) -> Line:
    folder = pathlib.Path(place).absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
        _write(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Line(FAIL, "disk", f"{place}: the disk is full. Free some space. {remedy}.")
        return Line(FAIL, "disk", f"{place} cannot be written: {reason}. {remedy}.")
    text = f"{place}: {free / GB:.1f} GB are free"
    if free < _LEAST_DISK:
        least = f"At least {_LEAST_DISK / GB:.0f} GB are needed"
        return Line(FAIL, "disk", f"{text}. {least}: free some space. {remedy}.")
    return Line(OK, "disk", f"{text}, writable")


def _write(folder: pathlib.Path) -> None:
    """Writes a megabyte into the folder, and removes it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())


def _bucket(place: str) -> Line:
    """Whether a folder in a bucket can be written."""
    file = epath.Path(place) / ".doctor"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.unlink()
    except ImportError as error:
        return Line(FAIL, "disk", f"{place}: {error}. Run: pip install -e '.[gcs]'")
    except Exception as error:  # each file system raises its own
        reason = failures.summary(error)
        remedy = "Check the name of the bucket, and whether you may write there."
        return Line(FAIL, "disk", f"{place} cannot be written: {reason} {remedy}")
    return Line(OK, "disk", f"{place}: writable")


def open_files() -> Line:
    """How many files a process may keep open. A run raises the soft limit up to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard):
        return Line(OK, "files", "a process may open any number of files")
    text = f"a process may open {soft:,} files, and {hard:,} if it asks for them"
    if hard >= _LEAST_FILES:
        return Line(OK, "files", text)
    remedy = f"ImageNet needs {_LEAST_FILES:,}. Ask the administrators for a higher hard limit"
    return Line(FAIL, "files", f"{text}. {remedy} (nofile in /etc/security/limits.conf).")
