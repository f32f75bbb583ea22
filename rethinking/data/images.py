"""What a network sees of an image: crops, whitening and augmentation, on the device, inside jit.

Images are [n, h, w, c], and their values 0 to 255 (uint8, or float32 for Gaussian pixels) up to the last step, which is
`whiten`, `scale`, `center` or `distort`. Only the four colour distortions, which `augment` and `distort` call, work on
values of 0 to 1. Whatever is random takes one key per image, which the caller derives from the seed, the epoch and the
image's index, so that the outcome depends neither on the batch nor on the devices.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt8

from rethinking.errors import InputError


def center_crop(
    images: Shaped[Array | np.ndarray, "n h w c"], size: int
) -> Shaped[Array | np.ndarray, "n s t c"]:
    """The middle `size` x `size` pixels, from offset (h - size) // 2 as TensorFlow does; 0 keeps the whole image.

    Takes and returns NumPy or JAX arrays. Raises InputError if the crop is larger than the image.
    """
    _check_size(images.shape, size)
    if size == 0:
        return images
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size]


def random_crop(
    images: Shaped[Array, "n h w c"], size: int, keys: Key[Array, " n"]
) -> Shaped[Array, "n s t c"]:
    """A `size` x `size` window of each image, every offset equally likely; 0 keeps the whole image.

    Raises InputError if the crop is larger than the image.
    """
    _check_size(images.shape, size)
    if size == 0:
        return images
    _, h, w, c = images.shape

    def crop(image, key):
        top, left = jax.random.randint(key, (2,), 0, jnp.array([h - size + 1, w - size + 1]))
        return jax.lax.dynamic_slice(image, (top, left, 0), (size, size, c))

    return jax.vmap(crop)(images, keys)


def scale(images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Values of 0 to 255, of any type, as float32 of 0 to 1."""
    return images.astype(jnp.float32) / 255


def whiten(images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Values / 255, less each image's mean, divided by max(std, 1/sqrt(number of values)), in float32.

    TensorFlow's per_image_whitening (appendix A). Takes values of 0 to 255, of any type.
    """
    images = scale(images)
    # One pass over the data gives both moments; taken from the first value, they lose no digits where contrast is low.
    centered = images - images[:, :1, :1, :1]
    mean, square = (jnp.mean(x, (1, 2, 3), keepdims=True) for x in (centered, centered * centered))
    variance = jnp.maximum(square - mean * mean, 1 / images[0].size)
    return (centered - mean) * jax.lax.rsqrt(variance)


def augment(
    images: Shaped[Array, "n h w c"],
    keys: Key[Array, " n"],
    size: int,
    settings: Mapping[str, Any],
) -> Shaped[Array, "n s t c"]:
    """Random distortions, in the order of TensorFlow's Inception.

    Values stay 0 to 255: of the same type if only position changes, float32 if colours do.

    Args:
        images: as stored.
        keys: one typed key per image.
        size: of the crop, in pixels; 0 for the whole image.
        settings: a value for each of these names; false or 0 switches a distortion off:
            crop: a random window instead of the middle one.
            flip: left to right, half of the time.
            brightness: largest shift, added to all values, where 1 is the way from black to white.
            saturation: s, a factor drawn from [1 - s, 1 + s].
            hue: largest rotation either way, in turns of the colour circle.
            contrast: s, a factor drawn from [1 - s, 1 + s].

    Raises:
        InputError: if the crop is larger than the image, or saturation or hue is to change in images without colour.
    """
    images = (
        random_crop(images, size, _each(keys, "crop"))
        if settings["crop"]
        else center_crop(images, size)
    )
    if settings["flip"]:
        images = random_flip(images, _each(keys, "flip"))
    changes = [name for name in _COLORS if settings[name]]
    if not changes:
        return images
    images = scale(images)
    for name in changes:
        images = _COLORS[name](images, settings[name], _each(keys, name))
    return 255 * jnp.clip(images, 0, 1)


def distort(
    images: UInt8[Array, "n h w c"],
    keys: Key[Array, " n"],
    settings: Mapping[str, Any],
) -> Float[Array, "n h w c"]:
    """TensorFlow's Inception distortion after the random box: flip and colours, as float32 of -1 to 1.

    Brightness comes first, then saturation and hue, then contrast; in every other image contrast comes before
    saturation and hue. (TensorFlow has the two orders take turns by the number of the thread; here each image draws.)
    The values are cut off at black and white only at the end.

    Args:
        images: of the size that the network sees.
        keys: one typed key per image.
        settings: as for `augment`, whose `crop` is for the host to see to.

    Raises:
        InputError: if saturation or hue is to change in images without colour.
    """

    def change(name: str, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return (
            _COLORS[name](images, settings[name], _each(keys, name)) if settings[name] else images
        )

    if settings["flip"]:
        images = random_flip(images, _each(keys, "flip"))
    images = change("brightness", scale(images))
    early = jax.vmap(jax.random.bernoulli)(_each(keys, "order"))[:, None, None, None]
    images = jnp.where(early, change("contrast", images), images)
    images = change("hue", change("saturation", images))
    images = jnp.where(early, images, change("contrast", images))
    return 2 * (jnp.clip(images, 0, 1) - 0.5)


def center(images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Values of 0 to 255, of any type, as float32 of -1 to 1: what a network trained with `distort` is tested on."""
    return 2 * (scale(images) - 0.5)


def random_flip(
    images: Shaped[Array, "n h w c"], keys: Key[Array, " n"]
) -> Shaped[Array, "n h w c"]:
    """Mirrors each image left to right with probability one half."""
    flips = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_brightness(
    images: Float[Array, "n h w c"], max_delta: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """Adds to each image a number drawn from [-max_delta, max_delta)."""
    return images + _uniform(keys, 0.0, max_delta)


def random_contrast(
    images: Float[Array, "n h w c"], spread: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """Multiplies each channel's distance from its mean by a factor drawn from [1 - spread, 1 + spread)."""
    mean = jnp.mean(images, (1, 2), keepdims=True)
    return (images - mean) * _uniform(keys, 1.0, spread) + mean


def random_saturation(
    images: Float[Array, "n h w c"], spread: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """Multiplies the saturation (of HSV) by a factor drawn from [1 - spread, 1 + spread), up to full saturation.

    Raises InputError unless the images have three channels.
    """
    hue, low, high = _hue(images)
    saturation = jnp.where(high > 0, (high - low) / jnp.where(high > 0, high, 1), 0)
    saturation = jnp.clip(saturation * _uniform(keys, 1.0, spread)[..., 0], 0, 1)
    return _color(hue, high * (1 - saturation), high)


def random_hue(
    images: Float[Array, "n h w c"], max_delta: float, keys: Key[Array, " n"]
) -> Float[Array, "n h w c"]:
    """Turns the hue (of HSV) by an angle drawn from [-max_delta, max_delta), in turns.

    Raises InputError unless the images have three channels.
    """
    hue, low, high = _hue(images)
    return _color((hue + _uniform(keys, 0.0, max_delta)[..., 0]) % 1, low, high)


def _each(keys: Key[Array, " n"], draw: str) -> Key[Array, " n"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, _DRAWS.index(draw))


def _uniform(keys: Key[Array, " n"], middle: float, spread: float) -> Float[Array, "n 1 1 1"]:
    draws = jax.vmap(
        lambda key: jax.random.uniform(key, (), jnp.float32, middle - spread, middle + spread)
    )(keys)
    return draws[:, None, None, None]


def _hue(
    images: Float[Array, "n h w c"],
) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"], Float[Array, "n h w"]]:
    """Hue in turns (0 for grey), and each pixel's smallest and largest channel."""
    if images.shape[-1] != 3:
        raise InputError(
            f"augment.saturation and augment.hue need 3 channels, the images have {images.shape[-1]}: set both to 0."
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
    """The inverse of `_hue`."""
    sixths = 6 * hue
    parts = jnp.abs(sixths - 3) - 1, 2 - jnp.abs(sixths - 2), 2 - jnp.abs(sixths - 4)
    return jnp.stack([low + (high - low) * jnp.clip(part, 0, 1) for part in parts], -1)


def _check_size(shape: tuple[int, ...], size: int) -> None:
    if not 0 <= size <= min(shape[1:3]):
        raise InputError(
            f"A crop of {size} pixels does not fit images of {shape[1]}x{shape[2]}: set data.crop_size."
        )


# What is drawn for an image. The place is part of every stream: changing it changes all results.
_DRAWS = ("crop", "flip", "brightness", "saturation", "hue", "contrast", "order")
# In the order in which `augment` applies them.
_COLORS = {
    "brightness": random_brightness,
    "saturation": random_saturation,
    "hue": random_hue,
    "contrast": random_contrast,
}
