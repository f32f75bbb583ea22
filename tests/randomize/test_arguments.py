"""The randomization as a library: what may be left out, what else is taken, what is refused."""

import re

import jaxtyping
import numpy as np
import pytest

from rethinking import randomize
from rethinking.errors import InputError

LABELS = np.arange(50) % 10


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
    """Without the check of annotations that tests have, which would refuse wrong types first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_what_is_left_out_has_the_obvious_value():
    x = np.arange(50 * 6, dtype=np.float32).reshape(50, 6)
    indices = np.arange(50)
    np.testing.assert_array_equal(
        randomize.corrupt_labels(LABELS), randomize.corrupt_labels(LABELS, indices, 10, 1.0, 0)
    )
    np.testing.assert_array_equal(randomize.shuffle_pixels(x), randomize.shuffle_pixels(x, 0))
    for function in (randomize.random_pixels, randomize.gaussian_pixels):
        np.testing.assert_array_equal(function(x), function(x, indices, 0, "train"))
        assert np.any(function(x) != function(x, split="test"))
    np.testing.assert_array_equal(
        randomize.gaussian_pixels(x), randomize.gaussian_pixels(x[::-1], like=x)
    )


@pytest.mark.parametrize(
    "labels, dtype",
    [
        (LABELS.astype(np.uint8), np.uint8),
        (LABELS.tolist(), np.int64),
        (tuple(LABELS), np.int64),
        (LABELS.astype(np.uint64), np.uint64),
    ],
)
def test_labels_of_any_integer_type(labels, dtype):
    found = randomize.corrupt_labels(labels, seed=np.int64(4))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, randomize.corrupt_labels(LABELS, seed=4))


def test_nothing_is_changed_in_nothing():
    assert randomize.corrupt_labels([]).shape == (0,)
    assert randomize.random_pixels(np.zeros((0, 3))).shape == (0, 3)


def test_images_without_channels_are_those_of_one_channel():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for function in (
        randomize.shuffle_pixels,
        randomize.random_pixels,
        randomize.gaussian_pixels,
    ):
        found = function(images)
        assert found.shape == images.shape
        np.testing.assert_array_equal(found, function(images[..., None])[..., 0])


def test_pytorch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    found = randomize.corrupt_labels(torch.from_numpy(LABELS))
    np.testing.assert_array_equal(found, randomize.corrupt_labels(LABELS))
    images = torch.arange(120).reshape(2, 3, 4, 5)  # channels in front
    with pytest.raises(InputError, match="channels in front, as in PyTorch"):
        randomize.shuffle_pixels(torch.zeros(2, 3, 8, 8))
    moved = randomize.shuffle_pixels(images.permute(0, 2, 3, 1))
    np.testing.assert_array_equal(moved[..., 2] - moved[..., 0], 40)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"labels": LABELS / 1.0}, "labels are of dtype float64, but must be whole numbers"),
        ({"labels": LABELS > 4}, "labels are of dtype bool"),
        ({"labels": ["cat", "dog"]}, "labels are of dtype <U3"),
        ({"labels": np.eye(10, dtype=int)}, "the shape (10, 10)"),
        ({"labels": LABELS[:, None]}, "labels.reshape(-1)"),
        ({"labels": LABELS + 1}, "none of them is 0"),
        ({"labels": [0, 1, 2**40]}, "none of them is 2"),
        ({"labels": LABELS - 1}, "from -1 to 8"),
        ({"labels": LABELS - 1, "num_classes": 10}, "from -1 to 8"),
        ({"num_classes": 9}, "from 0 to 9, but must be from 0 to num_classes - 1, which is 8"),
        ({"num_classes": 10.0}, "num_classes=10.0 is not a number of classes"),
        ({"num_classes": True}, "num_classes=True is not a number of classes"),
        ({"labels": LABELS.astype(np.uint8), "num_classes": 1000}, "uint8 cannot hold 1000"),
        ({"indices": np.arange(49)}, "49 indices for 50 examples"),
        ({"indices": np.arange(50) - 1}, "index -1 is negative"),
        ({"indices": np.arange(50) / 1.0}, "indices are of dtype float64"),
        ({"indices": np.arange(50) + 10**12}, "is too large"),
        ({"probability": -0.1}, "not a probability"),
        ({"probability": float("nan")}, "not a probability"),
        ({"probability": "half"}, "not a probability"),
        ({"seed": -1}, "seed=-1 is negative"),
        ({"seed": 0.5}, "seed=0.5 is negative or not a whole number"),
        ({"seed": True}, "seed=True"),
        ({"probability": 0.0, "seed": -1}, "seed=-1 is negative"),
    ],
)
def test_bad_labels_are_refused(arguments, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        randomize.corrupt_labels(**({"labels": LABELS} | arguments))


X = np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
    "call, reason",
    [
        (lambda: randomize.shuffle_pixels(np.zeros(5)), "shape (5,) cannot be randomized"),
        (lambda: randomize.shuffle_pixels(X.astype(object)), "dtype object"),
        (lambda: randomize.shuffle_pixels(X, -2), "seed=-2 is negative"),
        (lambda: randomize.random_pixels(X, [0, 1]), "2 indices for 4 examples"),
        (lambda: randomize.random_pixels(X, split="tset"), "Did you mean 'test'"),
        (lambda: randomize.random_pixels(np.zeros((2, 1, 28, 28))), "channels in front"),
        (lambda: randomize.gaussian_pixels(X + np.inf), "not finite"),
        (lambda: randomize.gaussian_pixels(X, like=X[:, 1:]), "shape (5,), but those of `like`"),
        (lambda: randomize.gaussian_pixels(X, like=X[:0]), "no example"),
    ],
)
def test_bad_examples_are_refused(call, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        call()
