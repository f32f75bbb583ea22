"""Whole data sets in memory."""

import dataclasses
import logging
import pathlib

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from rethinking import paths
from rethinking.data import cache
from rethinking.data.description import Info, Source
from rethinking.data.source import DEFAULT, Dataset, check_subset, find
from rethinking.data.splits import Evaluation, choose_records
from rethinking.errors import InputError

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
    """Examples (not only images), with the position of each in the source split.

    The random draws for an example depend on its position. `images` may also be vectors or tokens.
    """

    images: Examples
    labels: Int32[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]


def load(
    name: str,
    data_dir: str | None = None,
    num_train: int = 0,
    seed: int = 0,
    num_test: int = 0,
    train: bool = True,
    evaluation: Evaluation = DEFAULT,
) -> Dataset:
    """The training and the test set. `Info` says what the examples can be.

    The first call decodes images in files and writes them to a cache. Later calls map that cache.

    Args:
        name: see `source.find`.
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
    source = _find_arrays(name, data_dir, train, evaluation)
    info = evaluation.held_out(source.info)
    check_subset(name, info, num_train, num_test)
    arrays = _load_cached(source, evaluation)
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
        InputError: in the cases of `source.find`; also if it has nothing to evaluate, if its images
            differ in size, or if a file is cut short.
    """
    source = _find_arrays(name, data_dir, train, evaluation)
    source.check()
    folder = _cache_folder(source)
    if folder is None or not folder.is_dir():
        evaluation.require_labels(source)
    return evaluation.held_out(source.info)


def _find_arrays(name: str, data_dir: str | None, train: bool, evaluation: Evaluation) -> Source:
    source = find(name, data_dir, train, evaluation)
    if min(source.info.example_shape) <= 0:
        remedy = "Prepare them at one size."
        if source.info.example_shape[-1] == 3:
            remedy = "Stream the set instead, as configs/table2.py does."
        raise InputError(f"The images of {name} differ in size. {remedy}")
    return source


def _load_cached(source: Source, evaluation: Evaluation) -> dict[str, np.ndarray]:
    folder = _cache_folder(source)
    arrays = None
    if folder is not None:
        cache.remove_dead(folder.parent)
        arrays = cache.read(folder)
    if arrays is None:
        evaluation.require_labels(source)
        arrays = _read(source)
        if folder is not None:
            cache.write(folder, arrays)
    return arrays


def _read(source: Source) -> dict[str, np.ndarray]:
    if source.is_encoded:
        _LOG.info("Decoding the images of %s. Later runs read them from a cache.", source.name)
    source.check()
    arrays = {}
    for key in ("train", "test"):
        arrays[f"{key}_images"], arrays[f"{key}_labels"] = source.read_all(key)
    return arrays


def _cache_folder(source: Source) -> pathlib.Path | None:
    """The folder of the cache; None if the source needs none."""
    name = source.cache_name()
    return name and paths.cache() / "rethinking" / "data" / name
