"""Small sets of the user's own, in every form: arrays, .npz files, folders and tables."""

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
    """Writes train/CLASS/NUMBER.png and test/CLASS/NUMBER.png. Returns the folder."""
    for key, split in (("train", "train"), ("test", test)):
        for number, (image, label) in enumerate(
            zip(held[f"x_{key}"], held[f"y_{key}"], strict=True)
        ):
            folder = root / split / (names[label] if names else f"class_{label}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:05d}{suffix}").write_bytes(encode(image.squeeze()))
    return root


def assert_holds(dataset, held):
    """The data set has these arrays, bit for bit, in this order."""
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, held[f"x_{key}"])
        np.testing.assert_array_equal(split.labels, held[f"y_{key}"])
        assert split.images.dtype == held[f"x_{key}"].dtype
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.indices, np.arange(len(held[f"y_{key}"])))
