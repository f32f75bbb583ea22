"""Folders of images: train/CLASS/*.jpg and val/CLASS/*.jpg, as torchvision's ImageFolder.

The examples are numbered as there: by class, then by folder and file name, each in sorted order.
The classes are those of train. Files whose names do not end as those of images are left out.
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np
from jaxtyping import Int32

from rethinking.data import encoded
from rethinking.data.encoded import EncodedDescription, LabelledRecords
from rethinking.data.faults import naming, system_cause, unreadable
from rethinking.data.splits import EVALUATED
from rethinking.errors import InputError

# The endings that torchvision's ImageFolder takes, in capitals or not.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class FileRecords(LabelledRecords):
    """Images in one file each. `paths` are those inside `folder`.

    They are bytes in one array, because a million texts would slow a worker process's start.
    """

    folder: str
    paths: np.ndarray

    def encoded(self, index: int) -> bytes:
        """The content of a file. Raises BadRecord if it is missing."""
        path = self.place(index)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            cause = system_cause(error)
            if cause:
                raise unreadable(pathlib.Path(path), cause) from error
            raise self.unusable(index, "it is not there, or a link that leads nowhere") from error

    def place(self, index: int) -> str:
        """The file of an image."""
        return os.path.join(self.folder, os.fsdecode(self.paths[index]))


class FolderDescription(EncodedDescription):
    """A folder of images. A split is listed when something about it is asked."""

    def __init__(self, name: str, folder: pathlib.Path, streamed: bool):
        self.name, self.folder, self._streamed = name, folder, streamed
        self._listed: dict[str, tuple[np.ndarray, Int32[np.ndarray, " n"]]] = {}
        with naming(folder):
            self.splits = _folders(folder)
        known = [split for split in ("train", *EVALUATED) if split in self.splits]
        if not known:
            raise InputError(
                f"{folder} has no folder train, but {', '.join(self.splits[:10]) or 'no folders'}. "
                "Put the images into train/CLASS/, and those to evaluate into test/CLASS/ or "
                "val/CLASS/. Names of folders count as they are written."
            )
        self._first = known[0]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes: those of train, if there is such a folder."""
        with naming(self.folder):
            return tuple(_folders(self.folder / self._first))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @functools.cached_property
    def example_shape(self) -> tuple[int, int, int]:
        """The shape of the first image, or [-1, -1, 3] if the images are streamed."""
        records = self.records(self._first)
        if self._streamed or not len(records):
            return -1, -1, 3
        return encoded.first_shape(records)

    def records(self, split: str, streamed: bool = False) -> FileRecords:
        """The images of a split. None is read yet."""
        if split not in self._listed:
            with naming(self.folder / split):
                self._listed[split] = self._list(split)
        paths, labels = self._listed[split]
        return FileRecords(split, labels, streamed, str(self.folder / split), paths)

    def files(self, split: str) -> list[str]:
        """The paths of the images of a split."""
        records = self.records(split)
        return [records.place(index) for index in range(len(records))]

    def _list(self, split: str) -> tuple[np.ndarray, Int32[np.ndarray, " n"]]:
        """The images of a split, and their labels: -1 if they are not in folders of classes."""
        folder = self.folder / split
        found = _folders(folder)
        if not found:
            files = _images(folder, folder)
            return np.array(files, np.bytes_), np.full(len(files), -1, np.int32)
        numbers = {name: number for number, name in enumerate(self.classes)}
        paths, labels = [], []
        for name in found:
            files = _images(folder / name, folder)
            if name not in numbers:
                raise InputError(
                    f"{folder} has the class {name}, which {self.folder / self._first} does not "
                    "have. Remove that folder, or add images of the class to the other."
                )
            if not files:
                raise InputError(
                    f"{folder / name} has no images, which are files that end in "
                    f"{', '.join(ENDINGS)}. Put images of the class into it, or remove it."
                )
            paths += files
            labels += [numbers[name]] * len(files)
        return np.array(paths, np.bytes_), np.array(labels, np.int32)


def describe(name: str, folder: pathlib.Path, streamed: bool) -> FolderDescription:
    """The set in `folder`. Only its folders are listed. `streamed`: the images may differ in size.

    Raises InputError if there is no folder train or test. Listing a split raises it for an empty
    folder of a class, and for a class that train does not have.
    """
    return FolderDescription(name, folder, streamed)


def _folders(folder: pathlib.Path) -> list[str]:
    """The names of the folders in a folder, and of links to folders, without hidden ones."""
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in found if not name.startswith("."))


def _images(folder: pathlib.Path, root: pathlib.Path) -> list[bytes]:
    """The images in a folder and in those below it, as paths inside `root`."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, _, names in sorted(os.walk(folder, onerror=fail, followlinks=True)):
        inside = os.path.relpath(place, root)
        for name in sorted(names):
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                found.append(os.fsencode(os.path.normpath(os.path.join(inside, name))))
    return found
