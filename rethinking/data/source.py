"""TFDS sets on disk: find one by its name, describe it, check its files, and choose records."""

import dataclasses
import difflib
import json
import os
import pathlib
import re
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from rethinking import paths
from rethinking.errors import InputError, nearest

SplitT = TypeVar("SplitT")


@dataclasses.dataclass(frozen=True)
class Info:
    """The sizes of a data set, known before anything is decoded.

    In `image_shape`, -1 stands for sides that differ from image to image.
    """

    num_train: int
    num_test: int
    image_shape: tuple[int, int, int]
    num_classes: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A TFDS set on disk.

    `shards` holds the files of "train" and of "test", with the number of records in each. A set
    made for testing alone has no files of "train".
    """

    folder: pathlib.Path
    info: Info
    shards: dict[str, dict[pathlib.Path, int]]


@dataclasses.dataclass(frozen=True)
class Dataset(Generic[SplitT]):
    """Training and test examples. Labels start at 0.

    `SplitT` is `arrays.Split` for a set in memory, and `stream.Split` for one on disk.
    """

    name: str
    train: SplitT
    test: SplitT
    num_classes: int


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


def find_folder(name: str, data_dir: str | None = None) -> pathlib.Path | None:
    """The folder of the newest prepared version of NAME[/CONFIG][:VERSION], or None.

    It returns None if TFDS has the set but the set is not prepared. CONFIG may be left out if only
    one configuration is prepared.

    Raises:
        InputError: if the set is neither prepared nor in TFDS, or if CONFIG is missing.
    """
    root = resolve_data_dir(data_dir)
    match = re.fullmatch(r"(\w+)(?:/([^/:]+))?(?::([\d.]+))?", name)
    base, config, version = match.groups("") if match else (name, "", "")
    prepared = _prepared_names(root)
    if not match or base not in prepared:
        # Imported late, because the import takes longer than all the rest.
        import tensorflow_datasets as tfds

        known = {"digits", *prepared, *tfds.list_builders(with_community_datasets=False)}
        if not match or base not in known:
            # TFDS has too many names to list all of them.
            close = difflib.get_close_matches(base, known)
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


def find(name: str, data_dir: str | None = None, train: bool = True) -> Source:
    """The description of a prepared set, read from its two JSON files.

    `check_shards` checks whether the files are complete.

    Raises:
        InputError: if the set is unknown, not prepared or not image classification; if it has no
            training images although `train` is true; if it is not in ArrayRecord files; or if a
            file is missing.
    """
    newest = find_folder(name, data_dir)
    if newest is None:
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise InputError(
            f"{name} is not prepared in {resolve_data_dir(data_dir)}. Run: "
            f"python -m rethinking.data.prepare {name}{option}\n"
            "If it is prepared elsewhere, set data_dir or $TFDS_DATA_DIR to the folder that "
            "holds it."
        )
    try:
        metadata = json.loads((newest / "dataset_info.json").read_text())
        features = json.loads((newest / "features.json").read_text())
        return _describe(name, newest, metadata, features["featuresDict"]["features"], train)
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{newest} is damaged ({error!r}). Delete it, then prepare {name} again."
        ) from error


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
    except RuntimeError:
        return 0
    return found


def subset(total: int, num: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The records to use: the first `num` of a seeded permutation, or all in order if it is 0."""
    if num == 0:
        return np.arange(total)
    return np.random.default_rng(seed).permutation(total)[:num]


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


def damaged(file: pathlib.Path, cause: str) -> InputError:
    """The error to raise for a damaged file."""
    return InputError(
        f"{file} is damaged ({cause}). Delete its folder, then prepare the data set again."
    )


def _describe(
    name: str, folder: pathlib.Path, metadata: dict[str, Any], features: dict[str, Any], train: bool
) -> Source:
    image = features.get("image", {}).get("image")
    label = features.get("label", {}).get("classLabel")
    splits = {split["name"]: split for split in metadata["splits"]}
    test = "test" if "test" in splits else "validation"
    needed = {"train", test} if train else {test}
    if image is None or label is None or image.get("dtype") != "uint8" or not needed <= set(splits):
        splits_needed = "splits train and test" if train else "split test"
        raise InputError(
            f"{name} is not an image-classification set. It needs the features image (uint8) and "
            f"label, and the {splits_needed} (or validation instead of test). It has the features "
            f"{', '.join(features)} and the splits {', '.join(splits)}. Choose another set."
        )
    file_format = metadata.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise InputError(
            f"{name} is in {file_format} files in {folder}; array_record is needed. Delete that "
            "folder, or choose another --data_dir. Then run: "
            f"python -m rethinking.data.prepare {name}"
        )
    train_shards = {}
    if "train" in splits:
        train_shards = _shards(folder, metadata["name"], splits["train"])
    test_shards = _shards(folder, metadata["name"], splits[test])
    info = Info(
        num_train=sum(train_shards.values()),
        num_test=sum(test_shards.values()),
        image_shape=tuple(int(side) for side in image["shape"]["dimensions"]),
        num_classes=int(label["numClasses"]),
    )
    return Source(folder, info, {"train": train_shards, "test": test_shards})


def _shards(folder: pathlib.Path, name: str, split: dict[str, Any]) -> dict[pathlib.Path, int]:
    """The files of a split with their numbers of records. Raises InputError if one is missing."""
    lengths = [int(length) for length in split["shardLengths"]]
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    shards = {}
    for number, length in enumerate(lengths):
        file = folder / template.format(
            DATASET=name,
            SPLIT=split["name"],
            FILEFORMAT="array_record",
            SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
        )
        if not file.is_file():
            raise InputError(f"{file} is missing. Delete its folder, then prepare {name} again.")
        shards[file] = length
    return shards
