"""The handwritten digits that come with this package: 1,437 for training and 360 for testing."""

import hashlib
import io
import pathlib

import numpy as np

from rethinking.data.faults import unreadable
from rethinking.data.sources.in_memory import ArrayDescription
from rethinking.errors import InputError

FILE = pathlib.Path(__file__).parents[1] / "digits.npz"
NUM_TRAIN, NUM_CLASSES = 1437, 10
_DIGEST = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"


def describe() -> ArrayDescription:
    """The digits in a fixed random order, with values of 0 to 255.

    The file holds the test images of the UCI data set "Optical Recognition of Handwritten Digits"
    (E. Alpaydin and C. Kaynak, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0).
    Its values of 0 to 16 and its order are those of `sklearn.datasets.load_digits`.
    """
    try:
        content = FILE.read_bytes()
    except OSError as error:
        raise unreadable(FILE, str(error)) from error
    if hashlib.sha256(content).hexdigest() != _DIGEST:
        raise InputError(f"{FILE} is damaged. Install this package again.")
    with np.load(io.BytesIO(content)) as found:
        images, labels = found["images"], found["labels"].astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    darkest = 16
    images = np.rint(images * (255 / darkest)).astype(np.uint8)[order, :, :, None]
    labels = labels[order]
    splits = {
        "train": (images[:NUM_TRAIN], labels[:NUM_TRAIN]),
        "test": (images[NUM_TRAIN:], labels[NUM_TRAIN:]),
    }
    return ArrayDescription("digits", splits, NUM_CLASSES)
