"""Small sets of the user's own, in every form: arrays, .npz files, folders and tables."""

import shutil

import numpy as np

from rethinking.data import arrays
from tests.data.pictures import encode


def digits(num_train=40, num_test=20):
    """Some digits in colour, sorted by class, as (x_train, y_train, x_test, y_test) by name.

    Each class is in both parts.
    """
    dataset = arrays.load("digits")
    found = {}
    for key, split, num in (("train", dataset.train, num_train), ("test", dataset.test, num_test)):
        order = np.argsort(split.labels[:num], kind="stable")
        found[f"x_{key}"] = np.repeat(split.images[:num][order], 3, axis=3) // np.uint8([1, 2, 3])
        found[f"y_{key}"] = split.labels[:num][order]
    return found


def write_folder(root, held, names=None, test="test", suffix=".png"):
    """Writes train/CLASS/NUMBER.png and test/CLASS/NUMBER.png. Returns the folder.

    With the suffix .jpg, the images are JPEGs.
    """
    kind = "jpeg" if suffix == ".jpg" else "png"
    for key, split in (("train", "train"), ("test", test)):
        for number, (image, label) in enumerate(
            zip(held[f"x_{key}"], held[f"y_{key}"], strict=True)
        ):
            folder = root / split / (names[label] if names else f"class_{label}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:05d}{suffix}").write_bytes(encode(image.squeeze(), kind))
    return root


def assert_holds(dataset, held):
    """The data set has these arrays, bit for bit, in this order."""
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, held[f"x_{key}"])
        np.testing.assert_array_equal(split.labels, held[f"y_{key}"])
        assert split.images.dtype == held[f"x_{key}"].dtype
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.indices, np.arange(len(held[f"y_{key}"])))


def write_saved(root, tables):
    """Writes tables of Hugging Face's `datasets` as `save_to_disk` does. Returns the folder."""
    import datasets

    shutil.rmtree(root, ignore_errors=True)
    datasets.DatasetDict(tables).save_to_disk(root)
    return root


def write_parquet(root, tables):
    """Writes them as the parquet files of the hub. Returns the folder."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "data").mkdir(parents=True)
    for split, table in tables.items():
        table.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root
