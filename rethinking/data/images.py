"""What a network sees of an image: crops, whitening and augmentation, on the device, inside jit.

Images are [n, h, w, c]. Their values are 0 to 255 (uint8, or float32 for Gaussian pixels) up to the
last step, which is `whiten`, `scale`, `center` or `distort`. Inside `augment` and `distort`, the
changes of colour work on values of 0 to 1.

Random functions take one key for each image. The caller derives it from the seed, the epoch and the
image's index. So the result depends neither on the batch nor on the devices.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt8

from rethinking.data import colors
from rethinking.errors import InputError


@runtime_checkable
class Settings(Protocol):
    """Values by their names, such as a dictionary."""

    def __getitem__(self, name: str) -> Any: ...


def center_crop(
    images: Shaped[Array | np.ndarray, "n h w c"], size: int
) -> Shaped[Array | np.ndarray, "n s t c"]:
    """The middle `size` x `size` pixels of each image, or the whole images if `size` is 0.

    The crop starts at (h - size) // 2, as in TensorFlow. Takes and returns NumPy or JAX arrays.
    Raises InputError if the crop is larger than the image.
    """
    _check_size(images.shape, size)
    if size == 0:
        return images
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size]


def random_crop(
    images: Shaped[Array, "n h w c"], size: int, keys: Key[Array, " n"]
) -> Shaped[Array, "n s t c"]:
    """A random `size` x `size` window of each image, or the whole images if `size` is 0.

    All offsets are equally likely. Raises InputError if the crop is larger than the image.
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
    """The images as float32 of 0 to 1, from values of 0 to 255 of any type."""
    return images.astype(jnp.float32) / 255


def center(images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The images as float32 of -1 to 1, from values of 0 to 255 of any type.

    A network that is trained with `distort` is tested on such images.
    """
    return 2 * (scale(images) - 0.5)


def whiten(images: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The images minus their means, divided by their standard deviations, as float32.

    Mean and deviation are those of all values of an image, after division by 255. The deviation is
    at least 1 / sqrt(number of values). This is TensorFlow's per_image_whitening (appendix A). The
    input has values of 0 to 255 of any type.
    """
    images = scale(images)
    # Both moments come from one pass over the data. They are computed from the differences to the
    # first value. So no digits are lost where the contrast is low.
    centered = images - images[:, :1, :1, :1]
    mean, square = (jnp.mean(x, (1, 2, 3), keepdims=True) for x in (centered, centered * centered))
    variance = jnp.maximum(square - mean * mean, 1 / images[0].size)
    return (centered - mean) * jax.lax.rsqrt(variance)


def augment(
    images: Shaped[Array, "n h w c"],
    keys: Key[Array, " n"],
    size: int,
    settings: Settings,
) -> Shaped[Array, "n s t c"]:
    """The images, distorted at random in the order of TensorFlow's Inception.

    Values stay 0 to 255. They keep their type if only positions change. They are float32 if colours
    change.

    Args:
        images: as stored.
        keys: one typed key for each image.
        size: of the crop, in pixels; 0 for the whole image.
        settings: a value for each of the following names; false or 0 switches a change off.
            crop: whether to cut a random window instead of the middle one.
            flip: whether to mirror half of the images left to right.
            brightness: largest shift of all values. 1 is the distance from black to white.
            saturation: s, for a factor drawn from [1 - s, 1 + s].
            hue: largest rotation in either direction, as a fraction of a full turn.
            contrast: s, for a factor drawn from [1 - s, 1 + s].

    Raises:
        InputError: if the crop is larger than the image, or if saturation or hue is to change in
            images without colour.
    """
    if settings["crop"]:
        images = random_crop(images, size, _each(keys, "crop"))
    else:
        images = center_crop(images, size)
    if settings["flip"]:
        images = random_flip(images, _each(keys, "flip"))
    changes = [name for name in COLORS if settings[name]]
    if not changes:
        return images
    images = scale(images)
    for name in changes:
        images = COLORS[name](images, settings[name], _each(keys, name))
    return 255 * jnp.clip(images, 0, 1)


def distort(
    images: UInt8[Array, "n h w c"],
    keys: Key[Array, " n"],
    settings: Settings,
) -> Float[Array, "n h w c"]:
    """The images after TensorFlow's Inception distortion, as float32 of -1 to 1.

    It follows the random box. It flips, then changes brightness, then saturation and hue, then
    contrast. For half of the images, contrast comes before saturation and hue. TensorFlow chooses
    between these two orders by the number of the thread; here each image draws one. Values are
    clipped to black and white only at the end.

    Args:
        images: of the size that the network sees.
        keys: one typed key for each image.
        settings: as in `augment`. `crop` is ignored, because the host cuts the random box.

    Raises:
        InputError: if saturation or hue is to change in images without colour.
    """

    def change(name: str, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        if not settings[name]:
            return images
        return COLORS[name](images, settings[name], _each(keys, name))

    if settings["flip"]:
        images = random_flip(images, _each(keys, "flip"))
    images = change("brightness", scale(images))
    early = jax.vmap(jax.random.bernoulli)(_each(keys, "order"))[:, None, None, None]
    images = jnp.where(early, change("contrast", images), images)
    images = change("hue", change("saturation", images))
    images = jnp.where(early, images, change("contrast", images))
    return 2 * (jnp.clip(images, 0, 1) - 0.5)


def random_flip(
    images: Shaped[Array, "n h w c"], keys: Key[Array, " n"]
) -> Shaped[Array, "n h w c"]:
    """The images, each mirrored left to right with probability one half."""
    flips = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def _each(keys: Key[Array, " n"], draw: str) -> Key[Array, " n"]:
    """The keys for one of the random draws of each image."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, _DRAWS.index(draw))


def _check_size(shape: tuple[int, ...], size: int) -> None:
    height, width = shape[1:3]
    largest = min(height, width)
    if not 0 <= size <= largest:
        raise InputError(
            f"A crop of {size} pixels does not fit images of {height}x{width}. Choose a crop size "
            f"of 0 (the whole image) to {largest}."
        )


# The random draws of an image. The position in this tuple is part of a draw's random stream, so a
# new order would change all results.
_DRAWS = ("crop", "flip", "brightness", "saturation", "hue", "contrast", "order")
# The changes of colour, in the order in which `augment` applies them.
COLORS = {
    "brightness": colors.random_brightness,
    "saturation": colors.random_saturation,
    "hue": colors.random_hue,
    "contrast": colors.random_contrast,
}
