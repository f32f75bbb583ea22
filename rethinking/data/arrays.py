"""Whole data sets in memory: the bundled digits, and TFDS sets in ArrayRecord files."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import absl.logging
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from rethinking import paths
from rethinking.data.records import open_records
from rethinking.data.source import (
    Dataset,
    Info,
    Source,
    check_shards,
    check_subset,
    damaged,
    find,
    subset,
)
from rethinking.errors import InputError

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples, with the position of each in the source split.

    The random draws for an example depend on its position.
    """

    images: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]


_DIGITS = Info(num_train=1437, num_test=360, image_shape=(8, 8, 1), num_classes=10)


def load(
    name: str,
    data_dir: str | None = None,
    num_train: int = 0,
    seed: int = 0,
    num_test: int = 0,
    train: bool = True,
) -> Dataset:
    """The training and the test set, with images as uint8 of 0 to 255.

    The first call decodes the images and writes them to a cache. Later calls map that cache.

    Args:
        name: "digits" (in the package, 1,437 for training and 360 for testing), or a TFDS set such
            as "cifar10" or "mnist:3.0.1". It needs the features `image` and `label`, and the
            splits `train` and `test` (or else `validation`).
        data_dir: folder of the TFDS sets; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        num_train: number of training examples to keep, the first ones of a seeded permutation. 0
            keeps all, in the order of the source.
        seed: of that permutation.
        num_test: the same for the test set.
        train: whether there must be a training set. If not, it may be empty, as in
            "cifar10_corrupted/fog_1".

    Raises:
        InputError: in the cases of `describe`; also if the content of a file is damaged, or if a
            number is larger than the set.
    """
    if name == "digits":
        info = _DIGITS
        check_subset(name, info, num_train, num_test)
        arrays = _load_digits()
    else:
        source = _find_arrays(name, data_dir, train)
        info = source.info
        check_subset(name, info, num_train, num_test)
        arrays = _load_cached(source)
    return Dataset(
        name,
        _subset(arrays["train_images"], arrays["train_labels"], num_train, seed),
        _subset(arrays["test_images"], arrays["test_labels"], num_test, seed),
        info.num_classes,
    )


def _subset(images: np.ndarray, labels: np.ndarray, num: int, seed: int) -> Split:
    keep = subset(len(labels), num, seed)
    if num == 0:
        # Indexing would copy the images out of the mapped cache.
        return Split(images, labels, keep)
    return Split(images[keep], labels[keep], keep)


def describe(name: str, data_dir: str | None = None, train: bool = True) -> Info:
    """The sizes of the data set that `load` would give. Decodes no image.

    Raises:
        InputError: if the set is unknown, not prepared or not image classification; if it has no
            training images although `train` is true; if its images differ in size; if it is not in
            ArrayRecord files; or if a file is missing or cut short.
    """
    if name == "digits":
        return _DIGITS
    source = _find_arrays(name, data_dir, train)
    check_shards(source)
    return source.info


def _load_digits() -> dict[str, np.ndarray]:
    """The handwritten digits in digits.npz, in a fixed random order, with values of 0 to 255.

    The file holds the test images of the UCI data set "Optical Recognition of Handwritten Digits"
    (E. Alpaydin and C. Kaynak, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0).
    Its values of 0 to 16 and its order are those of `sklearn.datasets.load_digits`.
    """
    with np.load(pathlib.Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"].astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    darkest = 16
    images = np.rint(images * (255 / darkest)).astype(np.uint8)[order, :, :, None]
    labels = labels[order]
    n = _DIGITS.num_train
    return {
        "train_images": images[:n],
        "train_labels": labels[:n],
        "test_images": images[n:],
        "test_labels": labels[n:],
    }


def _find_arrays(name: str, data_dir: str | None, train: bool) -> Source:
    source = find(name, data_dir, train)
    height, width, channels = source.info.image_shape
    if min(height, width) <= 0:
        remedy = "Prepare them at one size."
        if channels == 3:
            remedy = "Stream the set instead, as configs/table2.py does."
        raise InputError(f"The images of {name} differ in size. {remedy}")
    return source


def _decode(source: Source) -> dict[str, np.ndarray]:
    check_shards(source)
    arrays = {}
    for split in source.shards:
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = _decode_split(source, split)
    return arrays


def _decode_split(source: Source, split: str) -> tuple[np.ndarray, np.ndarray]:
    files = source.shards[split]
    examples = open_records(source, split) if files else ()
    images = np.empty((len(examples), *source.info.image_shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    start = 0
    for file, length in files.items():
        try:
            for rows in _batches(start, start + length):
                for row, example in zip(rows, examples.__getitems__(rows), strict=True):
                    images[row], labels[row] = example["image"], example["label"]
        except Exception as error:  # The reader, protobuf and Pillow each raise their own errors.
            raise damaged(file, str(error)) from error
        start += length
    if start and not 0 <= labels.min() <= labels.max() < source.info.num_classes:
        raise InputError(
            f"{source.folder}, split {split}: some labels are not below the number of classes, "
            f"{source.info.num_classes}. Prepare the set again."
        )
    return images, labels


def _batches(start: int, stop: int) -> Iterator[range]:
    """Ranges of up to 1,000 indices, from `start` to `stop`.

    The reader unpacks a whole piece of a file, even for a single record.
    """
    for first in range(start, stop, 1000):
        yield range(first, min(first + 1000, stop))


def _load_cached(source: Source) -> dict[str, np.ndarray]:
    folder = _cache_folder(source)
    with contextlib.suppress(OSError, ValueError):
        return _read_cache(folder)
    _LOG.info("Decoding the images in %s. Later runs read them from a cache.", source.folder)
    # Hides TFDS's advice to install OpenCV, which would decode to the same values.
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        arrays = _decode(source)
    finally:
        absl.logging.set_verbosity(verbosity)
    _write_cache(folder, arrays)
    return arrays


def _cache_folder(source: Source) -> pathlib.Path:
    """The folder of the cache. Its name changes with the source's files.

    It depends on their place, sizes, times of change and description.
    """
    fingerprint = hashlib.sha256(str(source.folder.resolve()).encode())
    for name in ("dataset_info.json", "features.json"):
        fingerprint.update((source.folder / name).read_bytes())
    for files in source.shards.values():
        for file in files:
            stat = file.stat()
            fingerprint.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    root = paths.cache()
    name = f"{source.folder.parent.name}-{fingerprint.hexdigest()[:16]}"
    return root / "rethinking" / "data" / name


def _read_cache(folder: pathlib.Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        arrays[name] = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return arrays


def _write_cache(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent)
        for name, array in arrays.items():
            np.save(pathlib.Path(temporary) / f"{name}.npy", array)
        # An existing folder is damaged: it could not be read.
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError as error:
        # If the folder exists now, another process has just written the same arrays.
        if not folder.is_dir():
            _LOG.warning("The decoded images cannot be kept for the next run: %s", error)
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
