"""Crops, whitening and augmentation against closed forms in NumPy and in colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethinking import experiments
from rethinking.data import images
from rethinking.errors import InputError
from tests.data.pixels import colours, keys, noise

OFF = experiments.defaults("training").augment.to_dict()


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_center_crop(make):
    stored = make(np.arange(2 * 32 * 31 * 3).reshape(2, 32, 31, 3))
    cropped = images.center_crop(stored, 28)
    # TensorFlow rounds (31 - 28) / 2 down.
    np.testing.assert_array_equal(cropped, stored[:, 2:30, 1:29])
    assert type(cropped) is type(stored)
    assert images.center_crop(stored, 0) is stored


@pytest.mark.parametrize("size", [33, -1])
def test_crops_that_do_not_fit(size):
    with pytest.raises(InputError, match=r"32x40.*crop size of 0 .* to 32"):
        images.center_crop(np.zeros((1, 32, 40, 3), np.uint8), size)
    with pytest.raises(InputError, match=r"32x40.*crop size of 0 .* to 32"):
        images.random_crop(jnp.zeros((1, 32, 40, 3), jnp.uint8), size, keys(1))


def test_random_crops_are_windows_at_every_offset_alike():
    n, h, w, size = 3000, 6, 5, 4
    place = np.arange(h * w * 2, dtype=np.uint8).reshape(1, h, w, 2)
    crops = np.asarray(images.random_crop(jnp.asarray(np.repeat(place, n, 0)), size, keys(n)))
    offsets = [divmod(int(crop[0, 0, 0]) // 2, w) for crop in crops]
    for crop, (top, left) in zip(crops, offsets, strict=True):
        np.testing.assert_array_equal(crop, place[0, top : top + size, left : left + size])
    counts = [offsets.count((top, left)) for top in range(3) for left in range(2)]
    assert sum(counts) == n
    assert np.all(np.abs(np.array(counts) - n / 6) < 4 * np.sqrt(n * 5 / 36)), counts


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("low, high", [(0, 256), (250, 254), (3, 4), (255, 256), (0, 1)])
def test_whitening(dtype, low, high):
    stored = np.random.default_rng(0).integers(low, high, (3, 28, 28, 3)).astype(dtype)
    pixels = stored.astype(np.float64) / 255
    mean, std = (f(pixels, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    expected = (pixels - mean) / np.maximum(std, 1 / np.sqrt(28 * 28 * 3))
    whitened = jax.jit(images.whiten)(jnp.asarray(stored))
    assert whitened.dtype == jnp.float32
    np.testing.assert_allclose(whitened, expected, atol=2e-5, rtol=2e-5)


def test_scale():
    stored = noise()
    np.testing.assert_allclose(images.scale(stored), np.asarray(stored) / 255, rtol=1e-6)


def test_flips():
    n = 2000
    stored = noise(n, 2, 3, 1)
    flipped = np.asarray(images.random_flip(stored, keys(n)))
    mirrored = np.asarray(stored)[:, :, ::-1]
    is_mirrored = (flipped == mirrored).all((1, 2, 3))
    is_same = (flipped == np.asarray(stored)).all((1, 2, 3))
    assert np.all(is_mirrored | is_same)
    assert abs(np.mean(is_mirrored & ~is_same) - 0.5) < 0.06


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_colours_need_three_channels(name):
    with pytest.raises(InputError, match=rf"{name}.* 1\."):
        images.augment(noise(c=1), keys(4), 0, OFF | {name: 0.2})


def test_augment_off_is_the_center_crop():
    stored = noise()
    unchanged = images.augment(stored, keys(4), 6, OFF)
    assert unchanged.dtype == jnp.uint8
    np.testing.assert_array_equal(unchanged, images.center_crop(stored, 6))


def test_augment_keeps_values_of_0_to_255():
    stored = noise(64)
    moved = images.augment(stored, keys(64), 5, OFF | {"crop": True, "flip": True})
    assert moved.dtype == jnp.uint8 and moved.shape == (64, 5, 5, 3)
    bright = images.augment(stored, keys(64), 0, OFF | {"brightness": 0.2})
    shift = drawn_inside(64, 2, 0.2)[:, None, None, None]
    np.testing.assert_allclose(
        bright, 255 * np.clip(np.asarray(stored) / 255 + shift, 0, 1), atol=1e-3
    )


def drawn_inside(n, operation, spread):
    """The numbers that `augment` draws for an operation, which has a key of its own."""
    own = [jax.random.fold_in(key, operation) for key in keys(n)]
    return np.array([jax.random.uniform(key, (), jnp.float32, -spread, spread) for key in own])


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": True},
        {"flip": True},
        {"brightness": 0.1},
        {"saturation": 0.5},
        {"hue": 0.2},
        {"contrast": 0.5},
    ],
)
def test_each_setting_acts_by_itself(settings):
    stored = noise(8)
    alone = images.augment(stored, keys(8), 6, OFF | settings)
    assert not np.allclose(alone, images.center_crop(stored, 6))
    np.testing.assert_array_equal(alone, images.augment(stored, keys(8), 6, OFF | settings))
    assert not np.allclose(alone, images.augment(stored, keys(8, seed=1), 6, OFF | settings))


def test_augment_depends_on_each_images_key_alone():
    settings = experiments.defaults("training").augment.unlock()
    settings.update(crop=True, flip=True, brightness=0.125, saturation=0.5, hue=0.2, contrast=0.5)
    stored = noise(8)
    augment = jax.jit(lambda stored, keys: images.augment(stored, keys, 6, settings))
    together = augment(stored, keys(8))
    apart = jnp.concatenate([augment(stored[i : i + 1], keys(8)[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(together, apart, atol=1e-3)
    assert together.dtype == jnp.float32 and together.min() >= 0 and together.max() <= 255
    order = jnp.array([5, 2, 7])
    np.testing.assert_allclose(augment(stored[order], keys(8)[order]), together[order], atol=1e-3)


INCEPTION = OFF | {
    "flip": True,
    "brightness": 32 / 255,
    "saturation": 0.5,
    "hue": 0.2,
    "contrast": 0.5,
}


@jax.jit
def distort(stored, keys):
    return images.distort(stored, keys, INCEPTION)


def draws(n, draw, function):
    """The draws of `distort` for each of `keys(n)`. `draw` is the number of their stream."""
    return [np.asarray(function(jax.random.fold_in(key, draw))) for key in keys(n)]


def uniforms(n, draw, middle, spread):
    return draws(
        n,
        draw,
        lambda key: jax.random.uniform(key, (), jnp.float32, middle - spread, middle + spread),
    )


def to_hsv(red, green, blue):
    """The pixel in HSV. colorsys divides by zero if brightness left no channel above black."""
    if max(red, green, blue) > 0:
        return colorsys.rgb_to_hsv(red, green, blue)
    return 0, 0, max(red, green, blue)


def distort_one(pixels, flip, brightness, saturation, hue, contrast, contrast_early):
    """One image, distorted with NumPy and colorsys, with values of -1 to 1 from 0 to 255."""

    def change_contrast(x):
        mean = x.mean((0, 1), keepdims=True)
        return mean + contrast * (x - mean)

    x = pixels.astype(np.float64) / 255 + brightness
    if contrast_early:
        x = change_contrast(x)
    for row, column in np.ndindex(x.shape[:2]):
        h, s, v = to_hsv(*x[row, column])
        s = min(max(s * saturation, 0), 1)
        x[row, column] = colorsys.hsv_to_rgb((h + hue) % 1, s, v)
    if not contrast_early:
        x = change_contrast(x)
    x = np.clip(x, 0, 1) * 2 - 1
    return x[:, ::-1] if flip else x


def test_distortion_agrees_with_a_second_implementation():
    n = 32
    stored = np.concatenate([noise(n // 2, 7, 7), (255 * colours(n // 2)).astype(np.uint8)])
    flip, early = (draws(n, draw, jax.random.bernoulli) for draw in (1, 6))
    assert 4 < sum(early) < n - 4 and 4 < sum(flip) < n - 4, "both orders and both directions occur"
    brightness, hue = uniforms(n, 2, 0, 32 / 255), uniforms(n, 4, 0, 0.2)
    saturation, contrast = uniforms(n, 3, 1, 0.5), uniforms(n, 5, 1, 0.5)
    parameters = zip(stored, flip, brightness, saturation, hue, contrast, early, strict=True)
    expected = np.array([distort_one(*parameter) for parameter in parameters])
    distorted = np.asarray(distort(stored, keys(n)))
    assert distorted.dtype == np.float32 and distorted.min() == -1 and distorted.max() == 1
    np.testing.assert_allclose(distorted, expected, atol=1 / 255)  # half a grey level
    assert np.abs(distorted - expected).mean() < 1e-5


@pytest.mark.parametrize("name", ["flip", "brightness", "saturation", "hue", "contrast"])
def test_each_part_of_the_distortion_acts_by_itself(name):
    stored, off = noise(32), images.center(noise(32))
    np.testing.assert_array_equal(images.distort(stored, keys(32), OFF), off)
    alone = images.distort(stored, keys(32), OFF | {name: INCEPTION[name]})
    augmented = images.augment(stored, keys(32), 0, OFF | {name: INCEPTION[name]})
    np.testing.assert_allclose(alone, images.center(augmented), atol=1e-5)
    assert np.mean(alone != off) > 0.3


def test_distortion_depends_on_each_images_key_alone():
    stored, order = noise(8), jnp.array([5, 2, 7])
    together = distort(stored, keys(8))
    np.testing.assert_allclose(distort(stored[order], keys(8)[order]), together[order], atol=1e-5)
    assert not np.allclose(together, distort(stored, keys(8, seed=1)))


def test_distortion_needs_colour():
    with pytest.raises(InputError, match=r"saturation.* 1\."):
        images.distort(noise(c=1), keys(4), OFF | {"saturation": 0.2})


def test_center():
    centered = images.center(jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1))
    np.testing.assert_allclose(centered.ravel(), np.linspace(-1, 1, 256), atol=1e-6)


def test_whitening_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    stored = noise(5, 28, 28)
    pixels = torch.from_numpy(np.asarray(stored).reshape(5, -1) / 255)
    expected = torch.nn.functional.layer_norm(pixels, pixels.shape[1:], eps=0).reshape(stored.shape)
    np.testing.assert_allclose(images.whiten(stored), expected.numpy(), atol=1e-5)
