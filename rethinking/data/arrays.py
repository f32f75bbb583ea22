"""Whole data sets in memory: the bundled digits, and TFDS sets in ArrayRecord files."""

import dataclasses
import hashlib
import io
import logging
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from rethinking import paths
from rethinking.data import cache, formats
from rethinking.data.faults import naming, unreadable
from rethinking.data.records import Records, open_records
from rethinking.data.source import (
    DEFAULT,
    Dataset,
    Info,
    Source,
    check_shards,
    check_subset,
    find,
)
from rethinking.data.splits import Evaluation, choose_records
from rethinking.errors import InputError, require_known

_LOG = logging.getLogger(__name__)


# Images, vectors or sequences of tokens.
Examples = (
    UInt8[np.ndarray, "n h w c"]
    | Float32[np.ndarray, "n h w c"]
    | Float32[np.ndarray, "n d"]
    | Int32[np.ndarray, "n length"]
)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples, with the position of each in the source split.

    The random draws for an example depend on its position. `images` may also be vectors or tokens.
    """

    images: Examples
    labels: Int32[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]


_DIGITS = Info(num_train=1437, num_test=360, example_shape=(8, 8, 1), num_classes=10)
_DIGITS_DIGEST = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"


def load(
    name: str,
    data_dir: str | None = None,
    num_train: int = 0,
    seed: int = 0,
    num_test: int = 0,
    train: bool = True,
    evaluation: Evaluation = DEFAULT,
) -> Dataset:
    """The training and the test set, with images as uint8 of 0 to 255.

    The first call decodes the images and writes them to a cache. Later calls map that cache.

    Args:
        name: "digits" (in the package, 1,437 for training and 360 for testing), or a TFDS set such
            as "cifar10" or "mnist:3.0.1". It needs the features `image` and `label`, and the
            splits `train` and `test` (or else one of `splits.EVALUATED`).
        data_dir: folder of the TFDS sets; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        num_train: number of training examples to keep, the first ones of a seeded permutation. 0
            keeps all, in the order of the source.
        seed: of that permutation.
        num_test: the same for the test set.
        train: whether there must be a training set. If not, it may be empty, as in
            "cifar10_corrupted/fog_1".
        evaluation: what the test set is.

    Raises:
        InputError: in the cases of `describe`; also if a record is damaged, or if a number is
            larger than the set.
    """
    if name == "digits":
        info = _describe_digits(evaluation)
    else:
        source = _find_arrays(name, data_dir, train, evaluation)
        info = evaluation.held_out(source.info)
    check_subset(name, info, num_train, num_test)
    arrays = _load_digits() if name == "digits" else _load_cached(source, evaluation)
    chosen = choose_records(info, evaluation, num_train, num_test, seed)
    train_split, test_split = (_take(arrays, *each) for each in chosen)
    return Dataset(name, train_split, test_split, info.num_classes, info.eval_split)


def _take(arrays: dict[str, np.ndarray], key: str, keep: Int64[np.ndarray, " n"]) -> Split:
    images, labels = arrays[f"{key}_images"], arrays[f"{key}_labels"]
    if len(keep) == len(labels) and (keep == np.arange(len(labels))).all():
        # Indexing would copy the images out of the mapped cache.
        return Split(images, labels, keep)
    return Split(images[keep], labels[keep], keep)


def describe(
    name: str,
    data_dir: str | None = None,
    train: bool = True,
    evaluation: Evaluation = DEFAULT,
) -> Info:
    """The sizes of the data set that `load` would give. Decodes no image.

    Raises:
        InputError: if the set is unknown, not prepared or not image classification; if it has no
            training images although `train` is true; if it has nothing to evaluate; if its images
            differ in size; if it is not in ArrayRecord files; or if a file is missing, damaged or
            cut short.
    """
    if name == "digits":
        return _describe_digits(evaluation)
    source = _find_arrays(name, data_dir, train, evaluation)
    check_shards(source)
    if not _cache_folder(source).is_dir():
        evaluation.require_labels(source)
    return evaluation.held_out(source.info)


def _describe_digits(evaluation: Evaluation) -> Info:
    evaluation.check()
    if evaluation.split:
        require_known(evaluation.split, ("test",), "config.data.eval_split: digits has no split")
    return evaluation.held_out(_DIGITS)


def _load_digits() -> dict[str, np.ndarray]:
    """The handwritten digits in digits.npz, in a fixed random order, with values of 0 to 255.

    The file holds the test images of the UCI data set "Optical Recognition of Handwritten Digits"
    (E. Alpaydin and C. Kaynak, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0).
    Its values of 0 to 16 and its order are those of `sklearn.datasets.load_digits`.
    """
    file = pathlib.Path(__file__).with_name("digits.npz")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise unreadable(file, str(error)) from error
    if hashlib.sha256(content).hexdigest() != _DIGITS_DIGEST:
        raise InputError(f"{file} is damaged. Install this package again.")
    with np.load(io.BytesIO(content)) as found:
        images, labels = found["images"], found["labels"].astype(np.int32)
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


def _find_arrays(name: str, data_dir: str | None, train: bool, evaluation: Evaluation) -> Source:
    source = find(name, data_dir, train, evaluation)
    height, width, channels = source.info.example_shape
    if min(height, width) <= 0:
        remedy = "Prepare them at one size."
        if channels == 3:
            remedy = "Stream the set instead, as configs/table2.py does."
        raise InputError(f"The images of {name} differ in size. {remedy}")
    return source


def _decode(source: Source) -> dict[str, np.ndarray]:
    check_shards(source)
    arrays = {}
    for key in source.shards:
        arrays[f"{key}_images"], arrays[f"{key}_labels"] = _decode_split(source, key)
    return arrays


def _decode_split(source: Source, key: str) -> tuple[np.ndarray, np.ndarray]:
    lengths = source.shards[key].values()
    shape = source.info.example_shape
    images = np.empty((sum(lengths), *shape), np.uint8)
    labels = np.empty(sum(lengths), np.int32)
    if not len(labels):
        return images, labels
    records = Records(source, key, open_records(source, key, decode=False))
    start = 0
    for length in lengths:
        for rows in _batches(start, start + length):
            for row, (encoded, label) in zip(rows, records.read_many(rows), strict=True):
                images[row], labels[row] = _decode_image(records, row, encoded), label
        start += length
    return images, labels


def _decode_image(records: Records, row: int, encoded: bytes) -> UInt8[np.ndarray, "h w c"]:
    shape = records.source.info.example_shape
    try:
        image = formats.decode(encoded, shape[2])
    except formats.DecodeError as error:
        raise records.unusable(row, f"its image is damaged ({error})") from error
    if image.shape != shape:
        here, there = (" x ".join(map(str, sides)) for sides in (image.shape, shape))
        raise records.unusable(
            row, f"its image is {here}, but features.json says that all images are {there}"
        )
    return image


def _batches(start: int, stop: int) -> Iterator[range]:
    """Ranges of up to 1,000 indices, from `start` to `stop`.

    The reader unpacks a whole piece of a file, even for a single record.
    """
    for first in range(start, stop, 1000):
        yield range(first, min(first + 1000, stop))


def _load_cached(source: Source, evaluation: Evaluation) -> dict[str, np.ndarray]:
    folder = _cache_folder(source)
    cache.remove_dead(folder.parent)
    arrays = cache.read(folder)
    if arrays is None:
        evaluation.require_labels(source)
        _LOG.info("Decoding the images in %s. Later runs read them from a cache.", source.folder)
        arrays = _decode(source)
        cache.write(folder, arrays)
    return arrays


def _cache_folder(source: Source) -> pathlib.Path:
    """The folder of the cache. Its name changes with the source's files.

    It depends on their place, sizes, times of change and description.
    """
    fingerprint = hashlib.sha256(str(source.folder.resolve()).encode())
    with naming(source.folder):
        for name in ("dataset_info.json", "features.json"):
            fingerprint.update((source.folder / name).read_bytes())
        for files in source.shards.values():
            for file in files:
                stat = file.stat()
                fingerprint.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    root = paths.cache()
    name = f"{source.folder.parent.name}-{fingerprint.hexdigest()[:16]}"
    return root / "rethinking" / "data" / name
