"""Finished parts of a solve on a disk, so that an interrupted solve continues.

A folder has one file for each panel: of the factor, and of a matrix that is a sum of products of
features. One more file has the seconds spent. Files appear whole. One whose digest does not fit is
not used, nor are those after it.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from rethinking.kernels.backend import Backend

_LOG = logging.getLogger(__name__)
# How often panels of the factor are written, and how often the whole sum, which takes longer.
SECONDS_BETWEEN_PANELS = 60.0
SECONDS_BETWEEN_SUMS = 600.0
_DIGEST_BYTES = 32


class Kept:
    """The finished parts of one solve.

    Args:
        folder: is made when something is written. It has no other files.
        backend: whose storages are kept.
        matrix: a text that differs for another matrix, whose files are not used.
    """

    def __init__(self, folder: pathlib.Path, backend: Backend, matrix: str):
        self.backend = backend
        self._folder = folder
        self._matrix = hashlib.blake2b(f"{matrix}, {backend.description}".encode()).digest()
        self._num_panels = backend.layout.num_panels
        # Panels of the factor that are on the disk.
        self._written = 0
        self._noted: tuple[str, Any, int] | None = None
        self._began = self._written_at = time.monotonic()
        self._disk_failed = False
        spent = self._read("seconds", 0, (1,))
        # That earlier programs spent on this solve until they last wrote.
        self.seconds_before = 0.0 if spent is None else float(spent[0])

    def restore_sum(self) -> tuple[Any, int]:
        """A storage with the sum of the first blocks, and their number, which may be 0."""
        for name, blocks in reversed(self._sums()):
            storage, count = self._restore(name, self.backend.zeros())
            if count == self._num_panels:
                _LOG.info("Continuing after %d blocks of features.", blocks)
                return storage, blocks
        return self.backend.zeros(), 0

    def restore_factor(self, storage: Any) -> tuple[Any, int]:
        """The storage with the panels of the factor that are kept, and their number."""
        storage, self._written = self._restore("factor", storage)
        if self._written:
            _LOG.info("Continuing after %d of %d panels.", self._written, self._num_panels)
        return storage, self._written

    def note_sum(self, storage: Any, blocks: int) -> None:
        """Says that `storage` has the sum of so many blocks. Writes it if the last is old."""
        self._noted = f"sum_{blocks}", storage, self._num_panels
        if time.monotonic() - self._written_at >= SECONDS_BETWEEN_SUMS:
            self.flush()

    def note_factor(self, storage: Any, num_panels: int) -> None:
        """Says that `storage` has so many panels of the factor. Writes them if the last are old."""
        self._noted = "factor", storage, num_panels
        if time.monotonic() - self._written_at >= SECONDS_BETWEEN_PANELS:
            self.flush()

    def flush(self) -> None:
        """Writes what was noted last. A full disk is no error: nothing more is kept then."""
        if self._noted is None or self._disk_failed:
            return
        (name, storage, num_panels), self._noted = self._noted, None
        first = self._written if name == "factor" else 0
        try:
            self._folder.mkdir(exist_ok=True)
            for g in range(first, num_panels):
                self._write(name, g, self.backend.get_panel(storage, g))
            seconds = self.seconds_before + time.monotonic() - self._began
            self._write("seconds", 0, np.array([seconds], self.backend.dtype))
        except OSError as error:
            self._disk_failed = True
            self._remove("partial")
            if name != "factor":
                self._remove(f"{name}.*")
            _LOG.warning(
                "%s: %s. Nothing more of this solve is kept. It goes on, but if it is interrupted, "
                "it begins again at an earlier point. Free some space for the next run.",
                self._folder,
                error.strerror or error,
            )
            return
        if name == "factor":
            self._written = num_panels
        else:
            for older, _ in self._sums():
                if older != name:
                    self._remove(f"{older}.*")
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._noted = None

    def _remove(self, pattern: str) -> None:
        with contextlib.suppress(OSError):  # the disk cannot be written any more
            for file in self._folder.glob(pattern):
                file.unlink(missing_ok=True)

    def _sums(self) -> list[tuple[str, int]]:
        """(name, number of blocks) of each sum, in the order of the numbers."""
        names = {file.stem for file in self._folder.glob("sum_*.*")}
        return sorted(((name, int(name[4:])) for name in names), key=lambda found: found[1])

    def _restore(self, name: str, storage: Any) -> tuple[Any, int]:
        """The storage with the panels that are whole, from the first on, and their number."""
        for g in range(self._num_panels):
            panel = self._read(name, g, self.backend.panel_shape(g))
            if panel is None:
                return storage, g
            storage = self.backend.put_panel(storage, g, panel)
        return storage, self._num_panels

    def _digest(self, name: str, g: int, panel: np.ndarray) -> bytes:
        digest = hashlib.blake2b(self._matrix, digest_size=_DIGEST_BYTES)
        digest.update(f"{name}.{g}".encode())
        digest.update(panel)
        return digest.digest()

    def _write(self, name: str, g: int, panel: np.ndarray) -> None:
        """Writes a panel. Its file has its name only when it is whole and on the disk."""
        partial = self._folder / "partial"
        with open(partial, "wb") as stream:
            stream.write(self._digest(name, g, panel))
            stream.write(panel)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self._folder / f"{name}.{g}")

    def _read(self, name: str, g: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """A panel, or None if there is none, or one that is damaged or of another matrix."""
        file = self._folder / f"{name}.{g}"
        try:
            with open(file, "rb") as stream:
                digest = stream.read(_DIGEST_BYTES)
                panel = np.fromfile(stream, self.backend.dtype)
        except OSError:
            return None
        if panel.size != np.prod(shape) or digest != self._digest(name, g, panel):
            _LOG.warning("%s is damaged, or of another system. It is computed again.", file)
            return None
        return panel.reshape(shape)
