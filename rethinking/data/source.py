"""TFDS sets on disk: find one by its name, describe it, check its files, and choose records."""

import dataclasses
import difflib
import os
import pathlib
import re
from typing import Generic, TypeVar

from rethinking import paths
from rethinking.data import description
from rethinking.data.description import Info, Source
from rethinking.data.faults import damaged, naming, system_cause, unreadable
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError, nearest

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


def resolve_data_dir(data_dir: str | None) -> pathlib.Path:
    """The folder of the TFDS sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises InputError if that is a bucket.
    """
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in folder:
        raise InputError(
            f"data_dir {folder}: data sets cannot be read from a bucket. Mount the bucket with "
            "gcsfuse, or copy it to this machine. See docs/tpu_pod.md."
        )
    return pathlib.Path(paths.expand(folder))


def find_folder(name: str, data_dir: str | None = None, known: bool = False) -> pathlib.Path | None:
    """The folder of the newest prepared version of NAME[/CONFIG][:VERSION], or None.

    It returns None if the set is not prepared, but TFDS has it or it is `known` otherwise. CONFIG
    may be left out if only one configuration is prepared.

    Raises:
        InputError: if the set is neither prepared nor in TFDS, or if CONFIG is missing.
    """
    root = resolve_data_dir(data_dir)
    _check_readable(root)
    match = re.fullmatch(r"(\w+)(?:/([^/:]+))?(?::([\d.]+))?", name)
    base, config, version = match.groups("") if match else (name, "", "")
    prepared = _prepared_names(root)
    if not match or not (base in prepared or known):
        # Imported late, because the import takes longer than all the rest.
        import tensorflow_datasets as tfds

        names = {"digits", *prepared, *tfds.list_builders(with_community_datasets=False)}
        if not match or base not in names:
            # TFDS has too many names to list all of them.
            close = difflib.get_close_matches(base, names)
            raise InputError(
                f"Unknown data set {name!r}. {nearest(base, close or {'digits', *prepared})}"
            )
    folder = root / base / config
    if not any(folder.glob("*/dataset_info.json")):
        configs = sorted({path.parts[-3] for path in folder.glob("*/*/dataset_info.json")})
        if len(configs) > 1:
            names = ", ".join(f"{base}/{one}" for one in configs)
            raise InputError(f"{name} has several configurations. Name one: {names}")
        folder = folder.joinpath(*configs)
    return _newest_version(folder, version)


def _check_readable(root: pathlib.Path) -> None:
    """Raises InputError if `root` is there but cannot be listed. `glob` would find nothing."""
    try:
        os.listdir(root)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unreadable(root, error.strerror or str(error)) from error


def _prepared_names(root: pathlib.Path) -> set[str]:
    described = (*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json"))
    return {path.relative_to(root).parts[0] for path in described}


def _newest_version(folder: pathlib.Path, version: str) -> pathlib.Path | None:
    """The folder of `version`, or of the newest version if `version` is empty; None without one."""
    found = {}
    for path in folder.glob("*/dataset_info.json"):
        name = path.parent.name
        if re.fullmatch(r"\d+\.\d+\.\d+", name) and version in ("", name):
            numbers = tuple(int(number) for number in name.split("."))
            found[numbers] = path.parent
    return found[max(found)] if found else None


def find(
    name: str,
    data_dir: str | None = None,
    train: bool = True,
    evaluation: Evaluation = DEFAULT,
) -> Source:
    """The description of a prepared set, read from its two JSON files.

    `check_shards` checks whether the files are complete. `evaluation` says what to evaluate.

    Raises:
        InputError: if the set is unknown, not prepared or not image classification; if it has no
            training images although `train` is true; if it has nothing to evaluate; if it is not in
            ArrayRecord files; or if a file is missing, damaged or cannot be read.
    """
    evaluation.check()
    newest = find_folder(name, data_dir)
    if newest is None:
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise InputError(
            f"{name} is not prepared in {resolve_data_dir(data_dir)}. Run: "
            f"python -m rethinking.data.prepare {name}{option}\n"
            "If it is prepared elsewhere, set data_dir or $TFDS_DATA_DIR to the folder that "
            "holds it."
        )
    found = description.read(name, newest)
    if train and not ("train" in found.splits and sum(found.lengths("train").values())):
        raise InputError(
            f"{name} has no training images. It needs the splits train and test, and has "
            f"{', '.join(found.splits) or 'none'}. Choose another set."
        )
    with naming(newest):
        return evaluation.choose(found)


def check_shards(source: Source) -> None:
    """Raises InputError with a file's name unless every file has all of its records."""
    for files in source.shards.values():
        for file, length in files.items():
            found = _count_records(file)
            if found != length:
                raise damaged(
                    file,
                    f"{found} records where {length} should be: it is cut short or not ArrayRecord",
                )


def _count_records(file: pathlib.Path) -> int:
    """The number of records in a file; 0 if it cannot be opened."""
    from array_record.python import array_record_module

    # The index is at the end of the file. If that is missing, the reader reports no records, and
    # raises an error only when it is closed.
    try:
        reader = array_record_module.ArrayRecordReader(str(file))
        found = reader.num_records()
        reader.close()
    except RuntimeError as error:
        cause = system_cause(error)
        if cause:
            raise unreadable(file, cause) from error
        return 0
    return found


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
