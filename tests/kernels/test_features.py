"""Gabor wavelets against SciPy's correlation, the random conv-net against NumPy's windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.kernels.gabor import Gabor, gabor
from rethinking.kernels.random_conv import RandomConv, zca

SMALL = RandomConv(
    num_filters=7, patch_size=3, pool_size=5, pool_stride=2, threshold=0.5, num_patches=500
)


def noise(n=3, h=12, w=13, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def wavelet(wavelength, angle, envelope, radius):
    """The textbook's formula, pixel by pixel."""
    steps = range(-radius, radius + 1)
    weights = np.array(
        [
            [np.exp(-(x**2 + y**2) / (2 * (envelope * wavelength) ** 2)) for x in steps]
            for y in steps
        ]
    )
    along = np.array([[x * np.cos(angle) + y * np.sin(angle) for x in steps] for y in steps])
    wave = np.exp(2j * np.pi * along / wavelength)
    return weights / weights.sum() * (wave - (weights * wave).sum() / weights.sum())


def test_gabor_against_scipy():
    settings = Gabor(wavelengths=(3.0, 5.0), orientations=3, envelope=0.6, grid=4, pooling=1.5)
    images = noise(2, 10, 14, 1)
    cells = [
        [
            np.exp(-((np.arange(side) - ((i + 0.5) * side / 4 - 0.5)) ** 2) / (2 * 1.5**2))
            for i in range(4)
        ]
        for side in (10, 14)
    ]
    for image, row in zip(images, gabor(images, settings), strict=True):
        expected = []
        for wavelength in (3, 5):
            for angle in np.pi * np.arange(3) / 3:
                filter_ = wavelet(wavelength, angle, 0.6, 9)
                modulus = abs(scipy.signal.correlate2d(image[:, :, 0] / 255, filter_, "same"))
                expected += [
                    a @ modulus @ b / a.sum() / b.sum() for a in cells[0] for b in cells[1]
                ]
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), rtol=1e-4, atol=1e-6)


def test_gabor_filters_answer_to_their_own_orientation_and_wavelength():
    settings = Gabor()
    y, x = np.mgrid[:28, :28]
    for wave, wavelength in enumerate(settings.wavelengths):
        angles = np.pi * np.arange(8) / 8
        stripes = [np.cos(2 * np.pi / wavelength * (x * np.cos(t) + y * np.sin(t))) for t in angles]
        images = (127 + 100 * np.array(stripes)[..., None]).astype(np.float32)
        middle = gabor(images, settings).reshape(8, 2, 8, 7, 7)[..., 3, 3]
        np.testing.assert_array_equal(middle.reshape(8, 16).argmax(1), 8 * wave + np.arange(8))


def test_gabor_of_mnist_sized_images():
    images = noise(4, 28, 28, 1)
    images[2] = 0
    together = gabor(images)
    assert together.shape == (4, 784) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 0, 1], rtol=1e-5)
    darker = gabor(images / np.float32(2), batch_size=2)
    np.testing.assert_allclose(darker, together, atol=1e-5)


def windows(images, size):
    """All windows of [n, h, w, c], normalized as Coates & Ng do: [n, rows, columns, values]."""
    views = np.lib.stride_tricks.sliding_window_view(images / 255, (size, size), (1, 2)).transpose(
        0, 1, 2, 4, 5, 3
    )
    flat = views.reshape(*views.shape[:3], -1)
    return (flat - flat.mean(-1, keepdims=True)) / np.sqrt(
        (flat.var(-1, keepdims=True) + 10 / 255**2) * flat.shape[-1]
    )


@pytest.mark.parametrize("size, pool, stride, side", [(3, 5, 2, 14), (2, 6, 9, 23), (6, 15, 6, 32)])
def test_random_conv_against_loops_over_windows(size, pool, stride, side):
    images = noise(2, side, side + 1)
    images[0, :8] = 100 + images[0, :8] // 100  # Where contrast is low, the patches' norms matter.
    settings = RandomConv(
        num_filters=3, patch_size=size, pool_size=pool, pool_stride=stride, num_patches=300
    )
    fitted = settings.fit(images, seed=0)
    responses = windows(images, size) @ fitted.whitening @ fitted.filters.reshape(3, -1).T
    expected = [
        np.maximum(sign * responses[:, i : i + pool, j : j + pool, number] - 1, 0).mean((1, 2))
        for number in range(3)
        for sign in (1, -1)
        for i in range(0, responses.shape[1] - pool + 1, stride)
        for j in range(0, responses.shape[2] - pool + 1, stride)
    ]
    computed = fitted.transform(images)
    assert computed.shape == (2, 3 * fitted.settings.features_per_filter(side, side + 1))
    np.testing.assert_allclose(computed, np.transpose(expected), rtol=1e-3, atol=2e-5)
    assert np.mean(computed > 0) > 0.7


def test_number_of_features():
    fitted = RandomConv(num_filters=1, num_patches=200).fit(noise(), seed=0)
    assert fitted.settings.features_per_filter(32, 32) == 18
    assert fitted.settings.features_per_filter(31, 38) == 2 * 2 * 4


def test_blocks_are_columns_of_the_whole():
    images = noise(4)
    fitted = SMALL.fit(images, seed=0)
    whole = fitted.transform(images)
    per_filter = fitted.settings.features_per_filter(12, 13)
    assert whole.shape == (4, 7 * per_filter) and whole.dtype == np.float32
    blocks = list(fitted.blocks(images, filters_per_block=4, batch_size=2))
    assert [block.shape[1] for block in blocks] == [4 * per_filter, 3 * per_filter]
    np.testing.assert_allclose(np.concatenate(blocks, 1), whole, rtol=1e-4, atol=1e-6)
    part = fitted.transform(images, 2, 5, batch_size=2)
    np.testing.assert_allclose(
        part, whole[:, 2 * per_filter : 5 * per_filter], rtol=1e-4, atol=1e-6
    )


def test_filters_are_whitened_patches_of_the_images_drawn_from_everywhere():
    images = noise(2, 7, 7)  # Of 3x3 windows, 25 in each.
    fitted = RandomConv(num_filters=2000, patch_size=3, num_patches=2000).fit(images, seed=0)
    patches = windows(images, 3).reshape(50, 27)
    candidates = patches @ fitted.whitening
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    similarity = fitted.filters.reshape(2000, 27) @ candidates.T
    np.testing.assert_allclose(similarity.max(1), 1, atol=1e-10)
    counts = np.bincount(similarity.argmax(1), minlength=50)
    assert np.all(abs(counts - 40) < 5 * np.sqrt(40)), counts
    drawn = patches[similarity.argmax(1)]
    covariance = drawn.T @ drawn / 2000 + 1e-3 * np.eye(27)
    np.testing.assert_allclose(
        fitted.whitening @ covariance @ fitted.whitening, np.eye(27), atol=1e-8
    )


def test_zca_whitens():
    generator = np.random.default_rng(0)
    patches = generator.normal(size=(1000, 12)) @ generator.normal(size=(12, 12))
    whitening = zca(patches, 0.0)
    np.testing.assert_allclose(whitening, whitening.T, atol=1e-10)
    np.testing.assert_allclose(np.cov((patches @ whitening).T, bias=True), np.eye(12), atol=0.05)
    np.testing.assert_allclose(
        (patches @ whitening).T @ (patches @ whitening) / 1000, np.eye(12), atol=1e-8
    )


def test_flat_patches_have_finite_filters():
    images = np.zeros((3, 9, 9, 3), np.uint8)
    images[0] = noise(1, 9, 9)[0]
    assert np.isfinite(SMALL.fit(images, seed=0).filters).all()


def test_seeds():
    images = noise()
    first, again, other = (SMALL.fit(images, seed).filters for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).all(axis=(1, 2, 3)).any()


def test_more_filters_begin_with_the_same():
    images = noise()
    more = RandomConv(num_filters=9, patch_size=3, num_patches=500).fit(images, seed=0)
    np.testing.assert_allclose(more.filters[:7], SMALL.fit(images, seed=0).filters)


def test_floats_give_the_same_as_bytes_and_features_stay_float32_where_float64_is_on():
    grey, coloured = noise(4, c=1), noise(4)
    fitted = SMALL.fit(coloured, seed=0)
    expected = gabor(grey), fitted.transform(coloured)
    with jax.enable_x64(True):
        assert jnp.zeros(1).dtype == jnp.float64
        computed = (
            gabor(grey.astype(np.float64)),
            fitted.transform(coloured.astype(np.float64)),
        )
    for one, other in zip(computed, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    fitted = SMALL.fit(noise(), seed=0)
    images = noise().astype(np.float32)
    images[1, 2, 3, 0] = bad
    for compute in (
        lambda: gabor(images[..., :1]),
        lambda: SMALL.fit(images, 0),
        lambda: fitted.transform(images),
    ):
        with pytest.raises(InputError, match=r"NaN or infinite.*finite"):
            compute()


def test_images_that_do_not_fit():
    fitted = SMALL.fit(noise(), seed=0)
    with pytest.raises(InputError, match=r"12x13x3: .*1x1 pixels and 1 channels"):
        gabor(noise())
    with pytest.raises(InputError, match=r"0 images of 12x13x1: give at least one"):
        gabor(noise(0, c=1))
    with pytest.raises(InputError, match=r"2x13x3.*3x3 pixels"):
        SMALL.fit(noise(h=2), seed=0)
    with pytest.raises(InputError, match=r"6x13x3.*7x7 pixels"):
        fitted.transform(noise(h=6))
    with pytest.raises(InputError, match=r"12x13x1.*3 channels"):
        fitted.transform(noise(c=1))
    with pytest.raises(InputError, match="7 filters, none from 7 to 9"):
        fitted.transform(noise(), 7, 9)
    with pytest.raises(InputError, match="num_patches"):
        RandomConv(num_filters=501, num_patches=500).fit(noise(), seed=0)


@pytest.mark.slow
def test_gabor_interpolates_mnist_with_a_third_of_the_error_of_pixels(tfds_dir):
    mnist = arrays.load("mnist", tfds_dir("mnist"), num_train=2000, num_test=2000)

    def error(train, test, bandwidth):
        def gram(a):
            squares = (a**2).sum(1)[:, None] + (train**2).sum(1) - 2 * a @ train.T
            return np.exp(-bandwidth * squares)

        scores = gram(test) @ np.linalg.solve(gram(train), np.eye(10)[mnist.train.labels])
        return np.mean(scores.argmax(1) != mnist.test.labels)

    images = mnist.train.images, mnist.test.images
    pixels = error(*(stored.reshape(2000, -1) / 255 for stored in images), 0.02)
    wavelets = error(*(gabor(stored).astype(np.float64) for stored in images), 2.0)
    assert 0.03 < pixels < 0.08 and wavelets < pixels / 2.5
