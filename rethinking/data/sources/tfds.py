"""TFDS sets in ArrayRecord files: find one by its name, describe it, check and read its files."""

import dataclasses
import difflib
import hashlib
import os
import pathlib
import re
from collections.abc import Collection

import numpy as np
from jaxtyping import Int32, Shaped

from rethinking import paths
from rethinking.data import encoded
from rethinking.data.description import Description, Info, Source
from rethinking.data.faults import damaged, naming, system_cause, unreadable
from rethinking.data.sources import tfds_description, tfds_records
from rethinking.data.sources.tfds_description import Contents
from rethinking.data.sources.tfds_records import TfdsRecords
from rethinking.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class TfdsSource(Source):
    """A TFDS set on disk.

    `shards` holds the files of "train" and "test", with the number of records in each. There may be
    none.
    """

    folder: pathlib.Path
    shards: dict[str, dict[pathlib.Path, int]]

    is_encoded = True

    def check(self) -> None:
        """Raises InputError with a file's name unless every file has all of its records."""
        for files in self.shards.values():
            for file, length in files.items():
                found = _count_records(file)
                if found != length:
                    raise damaged(
                        file,
                        f"{found} records where {length} should be: it is cut short or not "
                        "ArrayRecord",
                    )

    def has_labels(self) -> bool:
        """Whether the records of "test" have labels. It reads a few of them."""
        return self.info.num_test > 0 and tfds_records.has_labels(self.records("test"))

    def read_all(self, key: str) -> tuple[Shaped[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]:
        """All images, decoded, and their labels. Raises InputError for a bad record."""
        shape = self.info.example_shape
        if not self.shards[key]:
            return np.empty((0, *shape), np.uint8), np.empty(0, np.int32)
        return encoded.decode_all(
            self.records(key), shape, "features.json says that all images are"
        )

    def records(self, key: str, streamed: bool = False) -> TfdsRecords:
        """The records of "train" or "test". None is read yet."""
        split = self.names[key]
        data = tfds_records.open_split(self.folder, split)
        return TfdsRecords(split, self.shards[key], self.info.num_classes, data, streamed)

    def cache_name(self) -> str:
        """It depends on the place, sizes, times of change and description of the files."""
        fingerprint = hashlib.sha256(str(self.folder.resolve()).encode())
        with naming(self.folder):
            for name in ("dataset_info.json", "features.json"):
                fingerprint.update((self.folder / name).read_bytes())
            for files in self.shards.values():
                for file in files:
                    stat = file.stat()
                    fingerprint.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return f"{self.folder.parent.name}-{fingerprint.hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True)
class TfdsDescription(Description):
    """A TFDS set on disk, whose two JSON files are read."""

    contents: Contents

    @property
    def name(self) -> str:
        """The name that the user gave."""
        return self.contents.name

    @property
    def splits(self) -> Collection[str]:
        """The names of the splits."""
        return self.contents.splits

    def size(self, split: str) -> int:
        """The number of records in a split. Raises InputError if the description is damaged."""
        return sum(self.contents.lengths(split).values())

    def source(self, test: str | None) -> TfdsSource:
        """The set, with `test` as the split to evaluate. Raises InputError for a missing file."""
        contents = self.contents
        with naming(contents.folder):
            train_files = contents.files("train") if "train" in self.splits else {}
            test_files = {} if test is None else contents.files(test)
            classes = _classes(contents)
        info = Info(
            num_train=sum(train_files.values()),
            num_test=sum(test_files.values()),
            example_shape=contents.image_shape,
            num_classes=contents.num_classes,
            eval_split=test or "",
            classes=classes,
        )
        return TfdsSource(
            name=self.name,
            info=info,
            names={"train": "train", "test": test or ""},
            splits=tuple(self.splits),
            folder=contents.folder,
            shards={"train": train_files, "test": test_files},
        )


def _classes(contents: Contents) -> tuple[str, ...]:
    """The names of the classes. A set need not have them."""
    file = contents.folder / "label.labels.txt"
    if not file.is_file():
        return ()
    names = tuple(file.read_text().splitlines())
    return names if len(names) == contents.num_classes else ()


def describe(name: str, data_dir: str | None = None) -> TfdsDescription:
    """The description of a prepared set, read from its two JSON files.

    Raises:
        InputError: if the set is unknown, not prepared or not image classification; if it is not in
            ArrayRecord files; or if a file is damaged or cannot be read.
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
    return TfdsDescription(tfds_description.read(name, newest))


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
