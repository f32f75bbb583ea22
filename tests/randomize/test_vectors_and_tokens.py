"""The randomization tests on vectors of numbers and on sequences of tokens."""

import numpy as np
import pytest
from scipy import stats

from rethinking import randomize
from rethinking.data.arrays import Split
from rethinking.data.source import Dataset
from rethinking.errors import InputError

D = 12


def dataset(images, num_train=40):
    """The first examples for training, the others for testing."""
    labels = np.arange(len(images), dtype=np.int32) % 3
    cuts = slice(num_train), slice(num_train, None)
    splits = (Split(images[cut], labels[cut], np.arange(len(labels[cut]))) for cut in cuts)
    return Dataset("planted", *splits, 3)


def positions(n, dtype=np.float32):
    """Examples whose features or tokens are their own positions."""
    return np.tile(np.arange(D), (n, 1)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_shuffled_features_move_alike_in_both_splits(dtype):
    found = randomize.apply(dataset(positions(60, dtype)), 0.0, "shuffled", 3)
    order = found.train.images[0]
    assert order.dtype == dtype
    np.testing.assert_array_equal(np.sort(order), np.arange(D))
    assert np.any(order != np.arange(D))
    np.testing.assert_array_equal(found.train.images, np.tile(order, (40, 1)))
    np.testing.assert_array_equal(found.test.images, np.tile(order, (20, 1)))
    # The draw is that of images with as many pixels.
    images = np.arange(D, dtype=np.uint8).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(randomize.shuffle_pixels(images, 3).ravel(), order)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_random_features_move_differently_in_each_example(dtype):
    found = randomize.apply(dataset(positions(400, dtype), 300), 0.0, "random", 3)
    moved = np.concatenate([found.train.images, found.test.images])
    np.testing.assert_array_equal(np.sort(moved), positions(400))
    assert len(np.unique(moved, axis=0)) == 400
    counts = [np.bincount(column.astype(int), minlength=D) for column in moved.T]
    assert stats.chisquare(np.ravel(counts)).pvalue > 1e-4
    images = positions(5, dtype).reshape(5, 3, 4, 1)
    same = randomize.random_pixels(images, [7, 2, 0, 9, 11], 3, "train").reshape(5, D)
    np.testing.assert_array_equal(same, found.train.images[[7, 2, 0, 9, 11]])


def test_gaussian_vectors_have_the_mean_and_the_variance_of_each_feature():
    rng = np.random.default_rng(0)
    mean, std = np.array([5.0, -300.0, 0.0]), np.array([0.01, 1000.0, 1.0])
    x = (mean + std * rng.standard_normal((3000, 3))).astype(np.float32)
    source = dataset(x, 2000)
    found = randomize.apply(source, 0.0, "gaussian", 0)
    train = x[:2000].astype(np.float64)
    for images in (found.train.images, found.test.images):
        n = len(images)
        assert images.dtype == np.float32
        assert np.all(abs(images.mean(0) - train.mean(0)) < 4 * train.std(0) / np.sqrt(n))
        np.testing.assert_allclose(images.std(0), train.std(0), rtol=4 / np.sqrt(2 * n))
    assert abs(np.corrcoef(found.train.images.T) - np.eye(3)).max() < 4 / np.sqrt(2000)


def test_gaussian_tokens_are_refused():
    with pytest.raises(InputError, match="Tokens cannot be replaced by Gaussian noise"):
        randomize.apply(dataset(positions(60, np.int32)), 0.0, "gaussian", 0)
    assert randomize.gaussian_pixels(positions(60, np.uint8)).dtype == np.float32  # no tokens


def test_labels_of_any_examples_are_randomized_alike():
    expected = randomize.corrupt_labels(np.arange(40) % 3, seed=7)
    for images in (positions(60), positions(60, np.int32), np.zeros((60, 4, 4, 1), np.uint8)):
        found = randomize.apply(dataset(images), 1.0, "none", 7)
        np.testing.assert_array_equal(found.train.labels, expected)
        assert found.train.images.base is images  # not copied
