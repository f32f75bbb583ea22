"""What the two JSON files of a TFDS set say about it. Every value that is used is checked."""

import dataclasses
import json
import pathlib
from typing import Any

from rethinking.data.faults import unreadable
from rethinking.data.formats import MODES
from rethinking.errors import InputError


class _Damaged(Exception):
    """Raised for the content of a file that cannot be right. Its message says why."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """The parts of the description that reading the set needs, and its splits by their name."""

    name: str
    folder: pathlib.Path
    dataset: str  # the name in the names of its files
    splits: dict[str, dict[str, Any]]
    image_shape: tuple[int, int, int]
    num_classes: int

    def lengths(self, split: str) -> dict[pathlib.Path, int]:
        """The files of a split, with the number of records in each.

        Raises InputError if the description is damaged.
        """
        try:
            names = _shard_names(self.dataset, split, self.splits[split])
        except _Damaged as error:
            file = self.folder / "dataset_info.json"
            raise _damaged(file, self.name, f"split {split}: {error}") from error
        return {self.folder / shard: length for shard, length in names.items()}

    def files(self, split: str) -> dict[pathlib.Path, int]:
        """`lengths`. Raises InputError if a file is missing."""
        files = self.lengths(split)
        for file in files:
            if not file.is_file():
                raise InputError(
                    f"{file} is missing. Delete its folder, then prepare {self.name} again."
                )
        return files


def read(name: str, folder: pathlib.Path) -> Contents:
    """The description of the set `name` in `folder`.

    Raises:
        InputError: if a file cannot be read or is damaged; if the set is not image classification;
            or if it is not in ArrayRecord files.
    """
    info, features = folder / "dataset_info.json", folder / "features.json"
    file = info
    try:
        metadata = _read_json(info)
        splits, dataset = _splits(metadata), metadata.get("name")
        if not isinstance(dataset, str):
            raise _Damaged("name is not a text")
        file = features
        found = _dictionary(_dictionary(_read_json(features), "featuresDict"), "features")
        _check_kind(name, found)
        shape = _image_shape(found["image"]["image"])
        num_classes = _integer(found["label"]["classLabel"].get("numClasses"), 1, "numClasses")
    except _Damaged as error:
        raise _damaged(file, name, str(error)) from error
    if shape[2] not in MODES:
        raise InputError(
            f"The images of {name} have {shape[2]} channels. Choose a set with 1 to 4."
        )
    file_format = metadata.get("fileFormat", "tfrecord")
    if file_format != "array_record":
        raise InputError(
            f"{name} is in {file_format} files in {folder}; array_record is needed. Delete that "
            "folder, or choose another --data_dir. Then run: "
            f"python -m rethinking.data.prepare {name}"
        )
    return Contents(name, folder, dataset, splits, shape, num_classes)


def _damaged(file: pathlib.Path, name: str, cause: str) -> InputError:
    return InputError(
        f"{file.parent} is damaged ({file}: {cause}). Delete it, then prepare {name} again."
    )


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise _Damaged("it is missing") from None
    except OSError as error:
        raise unreadable(file, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _Damaged("it is not a dictionary")
    return content


def _dictionary(content: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(content.get(key), dict):
        raise _Damaged(f"{key} is not a dictionary")
    return content[key]


def _integer(value: Any, minimum: int, what: str) -> int:
    """`value`, which JSON may store as text, as a number. Raises _Damaged if it is not one."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            number = int(value)
        except ValueError:
            number = minimum - 1
        if minimum <= number < 2**63:
            return number
    raise _Damaged(f"{what} is {value!r}, but must be a whole number of at least {minimum}")


def _splits(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The splits by their name."""
    listed = metadata.get("splits")
    if not isinstance(listed, list):
        raise _Damaged("splits is not a list")
    splits = {}
    for split in listed:
        if not isinstance(split, dict) or not isinstance(split.get("name"), str):
            raise _Damaged("a split has no name")
        splits[split["name"]] = split
    return splits


def _shard_names(dataset: str, name: str, split: dict[str, Any]) -> dict[str, int]:
    """The names of a split's files, with the number of records in each."""
    lengths = split.get("shardLengths")
    if not isinstance(lengths, list):
        raise _Damaged("it has no list shardLengths")
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    names = {}
    for number, length in enumerate(lengths):
        try:
            file = template.format(
                DATASET=dataset,
                SPLIT=name,
                FILEFORMAT="array_record",
                SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
            )
        except (AttributeError, LookupError, ValueError) as error:
            raise _Damaged(f"its filepathTemplate is {template!r}") from error
        names[file] = _integer(length, 0, "an entry of shardLengths")
    if len(names) < len(lengths):
        raise _Damaged(f"its filepathTemplate {template!r} gives two files one name")
    return names


def _check_kind(name: str, features: dict[str, Any]) -> None:
    """Raises InputError, with the reason, unless the features are those of image classification."""
    reason = None
    for feature, key, kind in (("image", "image", "Image"), ("label", "classLabel", "ClassLabel")):
        found = features.get(feature)
        if found is None:
            reason = f"it has no feature {feature}, but {', '.join(features) or 'none'}"
        elif not isinstance(found, dict):
            raise _Damaged(f"the feature {feature} is not a dictionary")
        elif not isinstance(found.get(key), dict):
            actual = str(found.get("pythonClassName", "of another kind")).rpartition(".")[2]
            reason = f"its feature {feature} is a {actual}, but must be a {kind}"
        if reason:
            break
    if not reason and features["image"]["image"].get("dtype") != "uint8":
        dtype = features["image"]["image"].get("dtype")
        reason = f"the dtype of its images is {dtype}, but must be uint8"
    if reason:
        raise InputError(
            f"{name} is not an image-classification set: {reason}. Choose a set with the features "
            "image (an Image of uint8) and label (a ClassLabel)."
        )


def _image_shape(image: dict[str, Any]) -> tuple[int, int, int]:
    sides = _dictionary(image, "shape").get("dimensions")
    if not isinstance(sides, list) or len(sides) != 3:
        raise _Damaged(f"the dimensions of the images are {sides!r}, but must be three numbers")
    height, width, channels = (_integer(side, -1, "a side of the images") for side in sides)
    if 0 in (height, width):
        raise _Damaged("a side of the images is 0")
    return height, width, channels
