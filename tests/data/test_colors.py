"""Changes of colour against closed forms in NumPy and the standard library's colorsys."""

import colorsys

import jax.numpy as jnp
import numpy as np

from rethinking.data import colors, images
from tests.data.pixels import colours, drawn, keys, noise


def test_brightness():
    pixels = images.scale(noise(50))
    delta = np.asarray(colors.random_brightness(pixels, 0.125, keys(50))) - np.asarray(pixels)
    shift = delta.mean((1, 2, 3))
    np.testing.assert_allclose(
        delta, np.broadcast_to(shift[:, None, None, None], delta.shape), atol=1e-6
    )
    np.testing.assert_allclose(shift, drawn(50, 0, 0.125), atol=1e-6)
    assert shift.min() < -0.1 and shift.max() > 0.1 and abs(shift).max() <= 0.125


def test_contrast():
    pixels = images.scale(noise(50))
    changed = np.asarray(colors.random_contrast(pixels, 0.5, keys(50)))
    mean = np.asarray(pixels, np.float64).mean((1, 2), keepdims=True)
    factor = drawn(50, 1, 0.5)[:, None, None, None]
    np.testing.assert_allclose(changed, mean + factor * (pixels - mean), atol=1e-6)
    assert factor.min() < 0.6 and factor.max() > 1.4


def change_hsv(pixels, change):
    """The pixels, changed by colorsys. `change` maps (image's number, h, s, v) to (h, s, v)."""
    changed = np.empty(pixels.shape)
    for number, row, column in np.ndindex(pixels.shape[:3]):
        hsv = colorsys.rgb_to_hsv(*pixels[number, row, column].astype(np.float64))
        changed[number, row, column] = colorsys.hsv_to_rgb(*change(number, *hsv))
    return changed


def test_saturation():
    pixels, factor = colours(20), drawn(20, 1, 0.5)
    expected = change_hsv(pixels, lambda n, h, s, v: (h, min(s * factor[n], 1), v))
    np.testing.assert_allclose(
        colors.random_saturation(jnp.asarray(pixels), 0.5, keys(20)), expected, atol=2e-6
    )
    assert factor.min() < 1 < factor.max()


def test_hue():
    pixels, turn = colours(20), drawn(20, 0, 0.2)
    expected = change_hsv(pixels, lambda n, h, s, v: ((h + turn[n]) % 1, s, v))
    np.testing.assert_allclose(
        colors.random_hue(jnp.asarray(pixels), 0.2, keys(20)), expected, atol=2e-6
    )
    assert turn.min() < 0 < turn.max()
