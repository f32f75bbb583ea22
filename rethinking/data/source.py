"""TFDS sets on disk: which one a name means, what it holds, whether its files are whole, access to their records."""

import dataclasses
import difflib
import itertools
import json
import os
import pathlib
import re
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from rethinking.errors import InputError, nearest

SplitT = TypeVar("SplitT")


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of a data set before anything is decoded."""

    num_train: int
    num_test: int
    image_shape: tuple[int, int, int]
    num_classes: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A TFDS set on disk. In `info.image_shape`, -1 stands for sides that differ from image to image.

    `shards` holds the files of "train" and "test" with the number of records in each; none of "train" where there are
    test images only.
    """

    folder: pathlib.Path
    info: Info
    shards: dict[str, dict[pathlib.Path, int]]


@dataclasses.dataclass(frozen=True)
class Dataset(Generic[SplitT]):
    """Training and test examples: `SplitT` is `arrays.Split` in memory, `stream.Split` on disk; labels start at 0."""

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
            f"data_dir {folder}: data sets are read from files. Mount the bucket with gcsfuse, or copy "
            "it to this machine, see docs/tpu_pod.md."
        )
    return pathlib.Path(folder).expanduser()


def find_folder(name: str, data_dir: str | None = None) -> pathlib.Path | None:
    """The folder of the newest prepared version of NAME[/CONFIG][:VERSION], or None if it is not prepared.

    CONFIG may be left out where only one is prepared. Raises InputError if there is no such set, neither prepared nor
    in TFDS, or if CONFIG is missing.
    """
    root = resolve_data_dir(data_dir)
    match = re.fullmatch(r"(\w+)(?:/([^/:]+))?(?::([\d.]+))?", name)
    base, config, version = match.groups("") if match else (name, "", "")
    described = (*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json"))
    prepared = {path.relative_to(root).parts[0] for path in described}
    if not match or base not in prepared:
        import tensorflow_datasets as tfds  # Imported late, because it takes longer than all the rest.

        known = {"digits", *prepared, *tfds.list_builders(with_community_datasets=False)}
        if not match or base not in known:
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
    versions = (path.parent for path in folder.glob("*/dataset_info.json"))
    found = [path for path in versions if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    found = [path for path in found if version in ("", path.name)]
    return max(
        found, key=lambda path: [int(number) for number in path.name.split(".")], default=None
    )


def find(name: str, data_dir: str | None = None, train: bool = True) -> Source:
    """The description of a prepared set, read from its two JSON files.

    Raises InputError if it is unknown or not prepared, no image classification, without training images where `train`
    asks for them, not in ArrayRecord files, or if a file is missing. Whether the files are whole is for `check_shards`
    to say.
    """
    newest = find_folder(name, data_dir)
    if newest is None:
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise InputError(
            f"{name} is not prepared in {resolve_data_dir(data_dir)}. Run: "
            f"python -m rethinking.data.prepare {name}{option}\n"
            "If it is prepared elsewhere, set data.data_dir or $TFDS_DATA_DIR to the folder that holds it."
        )
    try:
        metadata, features = (
            json.loads((newest / f).read_text()) for f in ("dataset_info.json", "features.json")
        )
        return _describe(name, newest, metadata, features["featuresDict"]["features"], train)
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{newest} is damaged ({error!r}). Delete it, then prepare {name} again."
        ) from error


def check_shards(source: Source) -> None:
    """Raises InputError, naming the file, unless each file opens and holds as many records as it should."""
    from array_record.python import array_record_module

    for file, length in itertools.chain.from_iterable(
        files.items() for files in source.shards.values()
    ):
        # The index is at the end. Of a file cut short, a reader says that it has no records, and why not when closed.
        try:
            reader = array_record_module.ArrayRecordReader(str(file))
            found = reader.num_records()
            reader.close()
        except RuntimeError:
            found = 0
        if found != length:
            raise damaged(
                file,
                f"{found} records where {length} should be: it is cut short or not ArrayRecord",
            )


def open_records(source: Source, split: str, decode: bool = True) -> Any:
    """TFDS's random access to the records of "train" or "test": dictionaries with, among others, image and label.

    With `decode` the image is an array, without it the stored bytes.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(source.folder)
    name = split if split in builder.info.splits else "validation"
    return builder.as_data_source(
        split=name, decoders=None if decode else {"image": tfds.decode.SkipDecoding()}
    )


def subset(total: int, num: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The records to use: the first `num` of a seeded permutation of all; 0 for all, in order."""
    return np.random.default_rng(seed).permutation(total)[:num] if num else np.arange(total)


def check_subset(name: str, info: Info, num_train: int, num_test: int) -> None:
    """Raises InputError if more records are asked for than there are, or fewer than none."""
    for field, wanted, there in (
        ("num_train", num_train, info.num_train),
        ("num_test", num_test, info.num_test),
    ):
        if not 0 <= wanted <= there:
            raise InputError(
                f"data.{field} must be 0 (all) to {there:,}, what {name} has, but is {wanted}."
            )


def damaged(file: pathlib.Path, cause: str) -> InputError:
    """The error to raise when a file turns out to be damaged."""
    return InputError(
        f"{file} is damaged ({cause}). Delete its folder, then prepare the data set again."
    )


def _describe(
    name: str, folder: pathlib.Path, metadata: dict[str, Any], features: dict[str, Any], train: bool
) -> Source:
    image, label = (
        features.get(key, {}).get(kind)
        for key, kind in (("image", "image"), ("label", "classLabel"))
    )
    splits = {split["name"]: split for split in metadata["splits"]}
    test = "test" if "test" in splits else "validation"
    needed = {"train", test} if train else {test}
    if image is None or label is None or image.get("dtype") != "uint8" or not needed <= set(splits):
        raise InputError(
            f"{name} is no image-classification set: needed are the features image (uint8) and label, and the splits "
            f"{'train and ' * train}test (or validation); it has {', '.join(features)} and {', '.join(splits)}."
        )
    shape = tuple(int(side) for side in image["shape"]["dimensions"])
    file_format = metadata.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise InputError(
            f"{name} is in {file_format} files in {folder}; array_record is needed. Delete that folder, or choose "
            f"another --data_dir, and run: python -m rethinking.data.prepare {name}"
        )
    used = {"train": splits.get("train"), "test": splits[test]}
    shards = {
        key: _shards(folder, metadata["name"], split) if split else {}
        for key, split in used.items()
    }
    counts = {split: sum(lengths.values()) for split, lengths in shards.items()}
    return Source(
        folder, Info(counts["train"], counts["test"], shape, int(label["numClasses"])), shards
    )


def _shards(folder: pathlib.Path, name: str, split: dict[str, Any]) -> dict[pathlib.Path, int]:
    lengths = [int(length) for length in split["shardLengths"]]
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    parts = {"DATASET": name, "SPLIT": split["name"], "FILEFORMAT": "array_record"}
    files = {
        folder / template.format(SHARD_X_OF_Y=f"{shard:05d}-of-{len(lengths):05d}", **parts): length
        for shard, length in enumerate(lengths)
    }
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing. Delete its folder, then prepare {name} again.")
    return files
