"""Random changes of colour, on the device, inside jit.

Images are [n, h, w, c] with values of 0 to 1. Each function takes one key for each image and
changes each image by a random amount of its own.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rethinking.errors import InputError


def random_brightness(
    images: Float[Array, "n h w c"], max_delta: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """The images, each plus a number drawn from [-max_delta, max_delta)."""
    return images + _uniform(keys, 0.0, max_delta)


def random_contrast(
    images: Float[Array, "n h w c"], spread: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """The images with each channel's distance from its mean multiplied by a random factor.

    The factor is drawn for each image from [1 - spread, 1 + spread).
    """
    mean = jnp.mean(images, (1, 2), keepdims=True)
    return (images - mean) * _uniform(keys, 1.0, spread) + mean


def random_saturation(
    images: Float[Array, "n h w c"], spread: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """The images with their saturation (of HSV) multiplied by a random factor.

    The factor is drawn for each image from [1 - spread, 1 + spread). The product is at most 1, full
    saturation. Raises InputError unless the images have three channels.
    """
    hue, low, high = _hue(images)
    saturation = jnp.where(high > 0, (high - low) / jnp.where(high > 0, high, 1), 0)
    saturation = jnp.clip(saturation * _uniform(keys, 1.0, spread)[..., 0], 0, 1)
    return _color(hue, high * (1 - saturation), high)


def random_hue(
    images: Float[Array, "n h w c"], max_delta: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """The images with their hue (of HSV) turned by a random angle.

    The angle is drawn for each image from [-max_delta, max_delta), where 1 is a full turn. Raises
    InputError unless the images have three channels.
    """
    hue, low, high = _hue(images)
    return _color((hue + _uniform(keys, 0.0, max_delta)[..., 0]) % 1, low, high)


def _uniform(keys: Key[Array, " n"], middle: float, spread: float) -> Float[Array, "n 1 1 1"]:
    draws = jax.vmap(
        lambda key: jax.random.uniform(key, (), jnp.float32, middle - spread, middle + spread)
    )(keys)
    return draws[:, None, None, None]


def _hue(
    images: Float[Array, "n h w c"],
) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], Float[Array, "n h w"]]:
    """The hue of each pixel, in full turns (0 for grey), and its smallest and largest channel."""
    if images.shape[-1] != 3:
        raise InputError(
            "A change of saturation or hue needs images with 3 channels, but these have "
            f"{images.shape[-1]}. Set both to 0."
        )
    red, green, blue = jnp.moveaxis(images, -1, 0)
    low, high = images.min(-1), images.max(-1)
    span = jnp.where(high > low, high - low, 1)
    turns = jnp.where(
        high == red,
        (green - blue) / span,
        jnp.where(high == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    return (turns / 6) % 1, low, high


def _color(
    hue: Float[Array, "n h w"], low: Float[Array, "n h w"], high: Float[Array, "n h w"]
) -> Float[Array, "n h w 3"]:
    """The images with this hue, smallest and largest channel: the inverse of `_hue`."""
    sixths = 6 * hue
    parts = jnp.abs(sixths - 3) - 1, 2 - jnp.abs(sixths - 2), 2 - jnp.abs(sixths - 4)
    return jnp.stack([low + (high - low) * jnp.clip(part, 0, 1) for part in parts], -1)
