"""Hugging Face sets on disk: Arrow files of `save_to_disk`, or parquet files of the hub.

`datasets` reads them, which comes with the extra `huggingface`. No network is needed. `columns`
says which columns are used.
"""

import dataclasses
import importlib.util
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from rethinking import paths
from rethinking.data import encoded
from rethinking.data.description import Description
from rethinking.data.encoded import EncodedDescription, LabelledRecords
from rethinking.data.faults import naming, system_cause, unreadable
from rethinking.data.sources import raw
from rethinking.data.sources.columns import Columns, find_columns, leaf
from rethinking.data.sources.in_memory import ArrayDescription
from rethinking.errors import InputError

# The files that `save_to_disk` writes beside the data: for several splits, and for one.
_SAVED = ("dataset_dict.json", "state.json")


@dataclasses.dataclass(frozen=True)
class ColumnRecords(LabelledRecords):
    """Images in a column of a table. Worker processes map the table's files themselves."""

    dataset: Any
    column: str
    folder: pathlib.Path

    def encoded(self, index: int) -> bytes:
        """The bytes of an image, from the table or from the file that the table names."""
        try:
            value = self.dataset.data.column(self.column)[index].as_py()
        except Exception as error:  # Arrow raises its own errors.
            cause = system_cause(error)
            if cause:
                raise unreadable(self.folder, cause) from error
            raise self.unusable(index, str(error)) from error
        if value is None or value["bytes"]:
            return value["bytes"] if value else b""
        file = self.folder / (value["path"] or "")
        try:
            return file.read_bytes()
        except OSError as error:
            cause = system_cause(error)
            if cause:
                raise unreadable(file, cause) from error
            raise self.unusable(index, f"{value['path']}: {error.strerror}") from error

    def place(self, index: int) -> str:
        """The row of an image."""
        return f"{self.folder}: row {index} of {self.split}"


@dataclasses.dataclass(frozen=True)
class ImageTables(EncodedDescription):
    """A Hugging Face set of images, opened."""

    name: str
    folder: pathlib.Path
    example_shape: tuple[int, int, int]
    num_classes: int
    classes: tuple[str, ...]
    splits: dict[str, ColumnRecords]
    sources: dict[str, list[str]]

    def records(self, split: str, streamed: bool = False) -> ColumnRecords:
        """The images of a split. None is read yet."""
        return dataclasses.replace(self.splits[split], streamed=streamed)

    def files(self, split: str) -> list[str]:
        """The paths of the files that the set comes from."""
        return self.sources[split]


def is_set(path: pathlib.Path) -> bool:
    """Whether `path` holds a Hugging Face set: its files are described or are parquet files."""
    if path.is_file():
        return path.suffix == ".parquet"
    return any((path / name).is_file() for name in _SAVED) or bool(_parquet_files(path))


def describe(name: str, path: pathlib.Path, streamed: bool) -> Description:
    """The set in the folder, or in the single parquet file, `path`.

    Raises InputError if `datasets` is not installed, if a file is damaged, or if the columns are
    not those of a set for classification.
    """
    if importlib.util.find_spec("datasets") is None:
        raise InputError(
            f"{name} is a Hugging Face set, which needs datasets. It is not installed. Run: "
            'pip install -e ".[huggingface]"'
        )
    tables = _open(path)
    for split, table in tables.items():
        # A table that was selected or sorted names the rows of another one. Making its own writes a
        # file beside it.
        if table._indices is not None:
            with naming(path):
                tables[split] = table.flatten_indices()
    first = tables["train" if "train" in tables else next(iter(tables))]
    columns = find_columns(first.features, name)
    _require_same_columns(tables, first.features, name)
    _require_same_classes(_features(path, tables), columns.label, name)
    names = tuple(getattr(first.features[columns.label], "names", ()))
    labels = {split: _labels(table, columns.label, name, split) for split, table in tables.items()}
    if columns.kind == "image":
        numbered, classes = raw.number_classes(labels, name, len(names) or None)
        names = names or raw.names_of(classes)
        return _images(name, path, tables, columns, numbered, len(classes), names, streamed)
    pairs = {}
    for split, table in tables.items():
        pairs[split] = _numbers(table, columns, name), labels[split]
    found = raw.prepared(pairs, name, len(names) or None)
    return ArrayDescription(name, *found._replace(classes=names or found.classes))


def _require_same_columns(tables: dict[str, Any], features: Any, name: str) -> None:
    for split, table in tables.items():
        if table.features.keys() != features.keys():
            raise InputError(
                f"{name}: the columns of {split} are {', '.join(table.features)}, but those of "
                f"another split are {', '.join(features)}. Bring them into agreement."
            )


def _features(path: pathlib.Path, tables: dict[str, Any]) -> dict[str, Any]:
    """The description of the columns of each parquet file, or else of each split.

    For all parquet files, `datasets` takes that of the first one.
    """
    import datasets
    import pyarrow.parquet

    found = {}
    for file in _parquet_files(path):
        schema = pyarrow.parquet.read_schema(file)
        found[file.name] = datasets.Features.from_arrow_schema(schema)
    return found or {split: table.features for split, table in tables.items()}


def _require_same_classes(features: dict[str, Any], label: str, name: str) -> None:
    """Raises InputError if the same number stands for another class in another part of the set."""
    (first, names), *others = (
        (part, getattr(columns.get(label), "names", None)) for part, columns in features.items()
    )
    for part, there in others:
        if there != names:
            raise InputError(
                f"{name}: the labels of {part} stand for the classes {_show(there)}, but those of "
                f"{first} for {_show(names)}. Number them alike in all parts of the set, or give "
                "the names of the classes as texts."
            )


def _show(names: list[str] | None) -> str:
    if names is None:
        return "(no names)"
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _images(
    name: str,
    path: pathlib.Path,
    tables: dict[str, Any],
    columns: Columns,
    labels: dict[str, Int32[np.ndarray, " n"]],
    num_classes: int,
    names: tuple[str, ...],
    streamed: bool,
) -> ImageTables:
    (column,) = columns.examples
    parquet = [str(file) for file in _parquet_files(path)]
    splits, files = {}, {}
    for split, table in tables.items():
        splits[split] = ColumnRecords(split, labels[split], streamed, table, column, path)
        files[split] = parquet or [file["filename"] for file in table.cache_files]
    first = splits["train" if "train" in splits else next(iter(splits))]
    shape = -1, -1, 3
    if len(first) and not streamed:
        shape = encoded.first_shape(first)
    return ImageTables(name, path, shape, num_classes, names, splits, files)


def _open(path: pathlib.Path) -> dict[str, Any]:
    """The tables of the set, by split."""
    import datasets

    for file in _parquet_files(path):
        _check_parquet(file)
    datasets.disable_progress_bars()
    is_saved = path.is_dir() and any((path / name).is_file() for name in _SAVED)
    _check_name(path, is_saved)
    where = str(paths.cache() / "rethinking" / "huggingface")
    try:
        if path.is_file():
            found = datasets.load_dataset(
                "parquet", data_files={"train": str(path)}, cache_dir=where
            )
        elif is_saved:
            found = datasets.load_from_disk(str(path))
        else:
            # A relative path may be the name of a reader of datasets, such as "parquet".
            found = datasets.load_dataset(str(path.absolute()), cache_dir=where)
    except Exception as error:  # datasets and Arrow raise their own errors.
        cause = system_cause(error)
        if cause:
            raise unreadable(path, cause) from error
        raise InputError(
            f"{path} cannot be opened as a Hugging Face set ({type(error).__name__}: {error}). If "
            "a file is damaged or missing, write or copy it again. If the set has several parts, "
            "give the folder of one."
        ) from error
    # A set without splits is one for training.
    return dict(found) if isinstance(found, dict) else {"train": found}


def _check_name(path: pathlib.Path, is_saved: bool) -> None:
    """Raises InputError for a path that `datasets` would take for a pattern of several paths."""
    name = str(path.absolute())
    for special in ("::",) if is_saved else ("::", "*", "?", "["):
        if special in name:
            raise InputError(
                f"{name} has {special} in its name, which datasets does not take for a part of a "
                "name. Rename the set or its folder, or make a link to it."
            )


def _parquet_files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    with naming(path):
        return sorted({*path.glob("*.parquet"), *path.glob("*/*.parquet")})


def _check_parquet(file: pathlib.Path) -> None:
    """Raises InputError with the file's name if it is cut short."""
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(file)
    except Exception as error:  # Arrow raises its own errors.
        cause = system_cause(error)
        if cause:
            raise unreadable(file, cause) from error
        raise InputError(
            f"{file} is damaged or cut short ({error}). Write or copy it again."
        ) from error


def _labels(table: Any, column: str, name: str, split: str) -> Shaped[np.ndarray, " n"]:
    values = table.data.column(column)
    if values.null_count:
        raise InputError(
            f"{name}: {values.null_count:,} labels of {split} are missing (column {column}). "
            "Remove these examples."
        )
    labels = values.to_numpy()
    return raw.class_values(
        labels.astype(str) if labels.dtype == object else labels, f"{name}: {column}"
    )


def _numbers(table: Any, columns: Columns, name: str) -> Shaped[np.ndarray, "n ..."]:
    """The examples: a column of arrays, or the columns of a table side by side."""
    arrays = table.select_columns(columns.examples).with_format("numpy")[:]
    if columns.kind == "table":
        return np.stack([arrays[column] for column in columns.examples], 1).astype(np.float32)
    (column,) = columns.examples
    array = arrays[column]
    if array.dtype == object:
        raise InputError(
            f"{name}: the examples in the column {column} differ in shape. Bring them to one shape."
        )
    # The format makes all whole numbers int64.
    return array.astype(leaf(table.features[column]), copy=False)
