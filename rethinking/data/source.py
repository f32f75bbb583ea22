"""Find a data set by its name, whatever its kind, and choose from it."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from typing import Generic, TypeVar

from rethinking import own_code, paths
from rethinking.data.description import Description, Info, Source
from rethinking.data.faults import naming
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError

DEFAULT = Evaluation()
SplitT = TypeVar("SplitT")


@dataclasses.dataclass(frozen=True)
class Dataset(Generic[SplitT]):
    """Training and test examples. Labels start at 0. `eval_split` says where the latter come from.

    `SplitT` is `arrays.Split` for a set in memory, and `stream.Split` for one on disk.
    """

    name: str
    train: SplitT
    test: SplitT
    num_classes: int
    eval_split: str = "test"


def find(
    name: str,
    data_dir: str | None = None,
    train: bool = True,
    evaluation: Evaluation = DEFAULT,
    streamed: bool = False,
) -> Source:
    """The set that `name` means, with what `evaluation` says to evaluate. No image is decoded.

    Args:
        name: "digits", the path of a file or a folder, package.module:function, or the name of a
            TFDS set.
        data_dir: the folder of the TFDS sets.
        train: whether there must be training examples.
        evaluation: what the test set is.
        streamed: whether images of different sizes and colours are wanted.

    Raises:
        InputError: if the set is unknown, not prepared or not one for classification; if it has no
            training examples although `train` is true; if it has nothing to evaluate; or if a file
            is missing, damaged or cannot be read.
    """
    evaluation.check()
    found = _describe(name, data_dir, streamed)
    if train and not ("train" in found.splits and found.size("train")):
        raise InputError(
            f"{name} has no training examples. It needs the splits train and test, and has "
            f"{', '.join(found.splits) or 'none'}. Choose another set."
        )
    return evaluation.choose(found)


def require_there(name: str, data_dir: str | None = None) -> None:
    """Raises InputError if the set that `name` means is not there. Reads no example.

    What a function of the user returns is not known before it is called, so it counts as there.
    """
    if is_path(name):
        _existing(name)
    elif not own_code.is_own(name):
        _describe(name, data_dir, streamed=False)


def is_path(name: str) -> bool:
    """Whether a data set's name is the path of a file or a folder."""
    return name.startswith(("/", "./", "../", "~")) or name.endswith((".npz", ".parquet"))


def version(name: str) -> str:
    """Twelve hex digits that change with the files of a set of the user's own; "" for other sets.

    They depend on the contents of a single file. Of a folder they depend on the names and sizes of
    its files, and on what describes the rest: JSON files, and the ends of parquet files. They do
    not depend on the place or on times.
    """
    if not is_path(name):
        return ""
    path = pathlib.Path(paths.expand(name))
    with naming(path):
        if path.is_file():
            stat = path.stat()
            return _file_digest(path, stat.st_size, stat.st_mtime_ns)
        found = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            # `datasets` keeps files of its own there.
            is_cache = file.name.startswith("cache-") and file.suffix == ".arrow"
            if is_cache or file.name.startswith(".") or not file.is_file():
                continue
            size = file.stat().st_size
            found.update(os.fsencode(f"{file.relative_to(path)} {size}\n"))
            if file.suffix in (".json", ".parquet"):
                with open(file, "rb") as opened:
                    opened.seek(max(0, size - _END_BYTES))
                    found.update(opened.read())
    return found.hexdigest()[:12] if path.is_dir() else ""


# Of the end of a file that describes the rest of it.
_END_BYTES = 2**16


@functools.lru_cache
def _file_digest(path: pathlib.Path, size: int, modified: int) -> str:
    """The digest of the contents of a file of this size and time of change."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:12]


def _describe(name: str, data_dir: str | None, streamed: bool) -> Description:
    # Each kind is imported when it is needed, because TFDS and datasets import slowly.
    if name == "digits":
        from rethinking.data.sources import digits

        return digits.describe()
    if re.match(r"\w+://", name):
        raise InputError(
            f"{name}: data sets cannot be read from a bucket. Copy the set to this machine, and "
            "give its path."
        )
    if own_code.is_own(name):
        from rethinking.data.sources import function

        return function.describe(name)
    if not is_path(name):
        from rethinking.data.sources import tfds

        return tfds.describe(name, data_dir)
    return _describe_path(name, _existing(name), streamed)


def _existing(name: str) -> pathlib.Path:
    path = pathlib.Path(paths.expand(name))
    with naming(path):
        is_there = path.exists()
    if not is_there:
        raise InputError(
            f"{name}: there is no such file or folder ({path.absolute()}). Correct the path."
        )
    return path


def _describe_path(name: str, path: pathlib.Path, streamed: bool) -> Description:
    from rethinking.data.sources import hugging_face, image_folder, npz

    if hugging_face.is_set(path):
        return hugging_face.describe(name, path, streamed)
    if path.is_dir():
        return image_folder.describe(name, path, streamed)
    if path.suffix == ".npz":
        return npz.describe(name, path)
    raise InputError(
        f"{name} is a file, but not an .npz or .parquet file. Give one of these, or a folder of "
        "images, or write a function that returns arrays: see docs/own_data.md."
    )


def check_subset(name: str, info: Info, num_train: int, num_test: int) -> None:
    """Raises InputError if a number is negative or larger than the set."""
    wanted = {"num_train": num_train, "num_test": num_test}
    available = {"num_train": info.num_train, "num_test": info.num_test}
    for argument in wanted:
        if not 0 <= wanted[argument] <= available[argument]:
            raise InputError(
                f"{argument} must be 0 (all) to {available[argument]:,} for {name}, "
                f"but is {wanted[argument]}."
            )
