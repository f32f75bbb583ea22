"""The randomization tests against the counts and moments that section 2.1 implies."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from rethinking import randomize
from rethinking.data.arrays import Split
from rethinking.data.source import Dataset
from rethinking.errors import InputError

N, K = 50_000, 10


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(0).integers(0, K, N).astype(np.int32)


def corrupt(labels, probability, seed=0, indices=None):
    return randomize.corrupt_labels(
        labels, np.arange(N) if indices is None else indices, K, probability, seed
    )


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def dataset(num_train=200, num_test=100, shape=(6, 5, 3)):
    rng = np.random.default_rng(1)

    def split(n):
        images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        return Split(images, rng.integers(0, K, n).astype(np.int32), np.arange(n))

    return Dataset("planted", split(num_train), split(num_test), K)


@pytest.mark.parametrize("probability", [0, 0.1, 0.5, 1])
def test_nine_tenths_of_corrupted_labels_change(labels, probability):
    changed = np.mean(corrupt(labels, probability) != labels)
    expected = probability * (1 - 1 / K)
    assert abs(changed - expected) <= 4 * np.sqrt(expected * (1 - expected) / N)


def test_random_labels_are_uniform_and_independent_of_the_true_ones(labels):
    new = corrupt(labels, 1.0)
    table = np.histogram2d(labels, new, bins=K)[0]
    assert stats.chisquare(table.sum(0)).pvalue > 1e-4
    assert stats.chi2_contingency(table).pvalue > 1e-4
    assert new.dtype == labels.dtype and (new.min(), new.max()) == (0, K - 1)


def test_corrupted_sets_are_nested(labels):
    # Labels outside the classes show which labels were replaced, whatever the new class.
    nothing = np.full(N, -1, np.int32)

    def replace(probability):
        return randomize.label_corruption(N, K, probability, 0)(nothing, np.arange(N))

    everything = replace(1.0)
    previous = np.zeros(N, bool)
    for probability in (0.1, 0.3, 0.5, 0.9, 1.0):
        new = replace(probability)
        replaced = new >= 0
        assert np.all(replaced[previous]) and replaced.sum() > previous.sum()
        np.testing.assert_array_equal(new[replaced], everything[replaced])
        previous = replaced


def test_probability_zero_returns_the_very_labels(labels):
    assert corrupt(labels, 0.0) is labels


def test_corruption_depends_on_the_index_alone(labels):
    chosen = np.random.default_rng(2).permutation(N)[:700]
    np.testing.assert_array_equal(
        corrupt(labels[chosen], 0.5, indices=chosen), corrupt(labels, 0.5)[chosen]
    )


def test_corruption_depends_on_the_seed(labels):
    agree = np.mean(corrupt(labels, 1.0, seed=0) == corrupt(labels, 1.0, seed=1))
    assert abs(agree - 1 / K) < 4 * np.sqrt(0.09 / N)


@pytest.mark.parametrize("probability", [-0.1, 1.01, float("nan")])
def test_improbable_probability(labels, probability):
    with pytest.raises(InputError, match="not a probability"):
        corrupt(labels, probability)


def test_negative_seed(labels):
    with pytest.raises(InputError, match="negative"):
        corrupt(labels, 0.5, seed=-1)


def positions(n, h=6, w=5):
    """Images whose channels hold each pixel's position, its double and its triple."""
    place = np.arange(h * w, dtype=np.uint8).reshape(h, w, 1)
    return np.tile(place * np.array([1, 2, 3], np.uint8), (n, 1, 1, 1))


def orders(moved):
    """The permutation that made each image of `positions`.

    Fails if it is not a permutation, or if the channels of a pixel were separated.
    """
    first = moved[..., 0].astype(int)
    np.testing.assert_array_equal(moved, np.stack([first, 2 * first, 3 * first], -1))
    rows = first.reshape(len(moved), -1)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(rows.shape[1]), (len(rows), 1)))
    return rows


def test_shuffled_pixels_move_alike_everywhere():
    found = orders(randomize.shuffle_pixels(positions(20), 0))
    assert np.all(found == found[0]) and np.any(found[0] != np.arange(30))
    assert np.any(orders(randomize.shuffle_pixels(positions(1), 1))[0] != found[0])
    planted = Dataset(
        "p", *(Split(positions(n), np.zeros(n, np.int32), np.arange(n)) for n in (7, 3)), K
    )
    both = randomize.apply(planted, 0.0, "shuffled", 0)
    np.testing.assert_array_equal(orders(both.train.images)[0], found[0])
    np.testing.assert_array_equal(orders(both.test.images)[2], found[0])


def test_random_pixels_move_differently_in_every_image():
    n = 300
    train, test, other = (
        orders(randomize.random_pixels(positions(n), np.arange(n), seed, split))
        for seed, split in ((0, "train"), (0, "test"), (1, "train"))
    )
    assert len(np.unique(np.concatenate([train, test, other]), axis=0)) == 3 * n
    # Every pixel goes everywhere equally often: 30 x 30 counts of about 30 each.
    counts = np.stack(
        [np.bincount(column, minlength=30) for column in np.concatenate([train, test, other]).T]
    )
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("pixels", ["random", "gaussian"])
def test_pixels_depend_on_the_index_alone(pixels):
    indices = np.arange(50)
    chosen = np.array([31, 4, 15])
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)

    def draw(indices):
        if pixels == "random":
            return randomize.random_pixels(images[indices], indices, 3, "test")
        return randomize.gaussian_pixels(images[indices], indices, 3, "test", like=images)

    np.testing.assert_array_equal(draw(chosen), draw(indices)[chosen])


def test_gaussian_pixels_have_the_moments_of_the_training_set():
    source = dataset(2000, 1000)
    source.train.images[..., 1] //= 2
    source.train.images[..., 2] //= 4
    result = randomize.apply(source, 0.0, "gaussian", 0)
    pixels = source.train.images.reshape(-1, 3).astype(float)
    for images in (result.train.images, result.test.images):
        assert images.dtype == np.float32
        drawn = images.reshape(-1, 3).astype(float)
        n, std = len(drawn), pixels.std(0)
        assert np.all(abs(drawn.mean(0) - pixels.mean(0)) < 4 * std / np.sqrt(n))
        assert np.all(abs(drawn.var(0) - std**2) < 4 * std**2 * np.sqrt(2 / n))
        # The mean and variance over all channels then match as well.
        np.testing.assert_allclose(
            [drawn.mean(), drawn.var()], [pixels.mean(), pixels.var()], rtol=0.02
        )
        assert stats.kstest((drawn[:, 0] - pixels[:, 0].mean()) / std[0], "norm").pvalue > 1e-4
        assert drawn.min() < 0 and drawn.max() > 255, "neither clipped"
        assert np.any(drawn != np.round(drawn)), "nor rounded"
    train, test = result.train.images[:1000, ..., 0].ravel(), result.test.images[..., 0].ravel()
    assert abs(np.corrcoef(train, test)[0, 1]) < 4 / np.sqrt(train.size), (
        "test images are draws of their own"
    )


@pytest.mark.parametrize("pixels", ["none", "shuffled", "random", "gaussian"])
def test_test_labels_are_never_touched(pixels):
    source = dataset()
    before = source.test.labels.copy()
    result = randomize.apply(source, 1.0, pixels, 0)
    assert result.test.labels is source.test.labels
    np.testing.assert_array_equal(result.test.labels, before)
    assert np.any(result.train.labels != source.train.labels)


def test_true_labels_change_nothing():
    source = dataset()
    result = randomize.apply(source, 0.0, "none", 0)
    assert result.train.images is source.train.images and result.test.images is source.test.images
    assert result.train.labels is source.train.labels
    assert (result.name, result.num_classes) == (source.name, source.num_classes)


@pytest.mark.parametrize("pixels", ["shuffled", "random", "gaussian"])
def test_the_source_is_not_written_to(pixels):
    source = dataset()
    before = digest(source.train.images), digest(source.train.labels), digest(source.test.images)
    randomize.apply(source, 1.0, pixels, 0)
    assert before == (
        digest(source.train.images),
        digest(source.train.labels),
        digest(source.test.images),
    )


def test_unknown_pixels():
    with pytest.raises(InputError, match=r"'shufled'.*Did you mean 'shuffled'"):
        randomize.apply(dataset(), 0.0, "shufled", 0)


def test_streams_stay_what_they_are():
    """Published results depend on these draws.

    If this fails, new runs cannot be compared with old ones.
    """
    indices = np.arange(1000)
    found = {
        "labels": digest(corrupt(np.zeros(1000, np.int32), 1.0, indices=indices)),
        "shuffled": digest(randomize.shuffle_pixels(positions(1), 0)),
        "random": digest(randomize.random_pixels(positions(9), indices[:9], 0, "train")),
        "random, test": digest(randomize.random_pixels(positions(9), indices[:9], 0, "test")),
    }
    assert found == {
        "labels": "4ec8da6d833d2b08",
        "shuffled": "7b3dd252c5f189e7",
        "random": "3f51aaec4fbdd966",
        "random, test": "57dd41b4e48660f5",
    }
    # The values of `standard` have mean zero and variance one.
    standard = np.array([-1.0, 1.0], np.float32).repeat(4).reshape(2, 2, 2, 1)
    gaussian = randomize.gaussian_pixels(standard, indices[:2], 0, "train")
    np.testing.assert_allclose(gaussian[:, 0, 0, 0], [-0.44078845, 1.3390148], rtol=1e-6)
