"""Parts that both kinds of image features share: exact convolutions, batches, checks of images.

Images are [n, h, w, c] with values of 0 to 255. Features are float32, one row for each image.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from rethinking.errors import InputError
from rethinking.kernels import checks, threads

Images = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]
# By default accelerators round the factors of a product to fewer digits.
EXACT = jax.lax.Precision.HIGHEST


def convolve(images: Array, filters: Array, padding: str) -> Float32[Array, "n h w filters"]:
    """The images' convolution with filters [h, w, c, filters], at full precision."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, filters, (1, 1), padding, dimension_numbers=layout, precision=EXACT
    )


def in_batches(
    features: Callable[..., Array], images: Images, batch_size: int, *arrays: Array
) -> np.ndarray:
    """`features(batch, *arrays)` of all batches of the images, in one array."""
    check_count("batch_size", batch_size)

    def of_batch(start: int) -> np.ndarray:
        return np.asarray(features(images[start : start + batch_size], *arrays))

    starts = range(0, len(images), batch_size)
    # An accelerator computes a batch on all of its cores.
    several = threads.in_order if jax.default_backend() == "cpu" else map
    return np.concatenate(list(several(of_batch, starts)))


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises InputError unless `value` is a whole number of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(f"{name}={value!r}: it must be a whole number of at least {least}.")


def check_positive(name: str, value: Any) -> None:
    """Raises InputError unless `value` is a positive number."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 < value < math.inf:
        raise InputError(f"{name}={value!r}: it must be a positive number.")


def check_images(images: Images, channels: int = 0, side: int = 1) -> np.ndarray:
    """The images as an array. `channels` 0 allows any number.

    Raises InputError for no images, too small ones, other channels, and for values that are not
    finite or not of 0 to 255.
    """
    images = checks.as_array("images", images)
    if images.dtype.kind not in "buif":
        raise InputError(f"images have the type {images.dtype}: they must be numbers of 0 to 255.")
    if images.ndim != 4:
        raise InputError(
            f"images of shape {images.shape}: they must be [n, height, width, channels]. For grey "
            "images give images[..., None]."
        )
    n, h, w, c = images.shape
    if n == 0 or min(h, w) < side or (channels and c != channels):
        needed = f"at least one image of at least {side}x{side} pixels"
        if channels:
            needed += f" and {channels} channels"
        raise InputError(f"features of {n} images of {h}x{w}x{c}: give {needed}.")
    if images.dtype == np.uint8:
        return images
    if not np.isfinite(images).all():
        raise InputError(
            "features: some pixels are NaN or infinite. Values must be finite, of 0 to 255."
        )
    for wrong, where in ((images.min() < 0, "below 0"), (images.max() > 255, "above 255")):
        if wrong:
            raise InputError(f"features: some pixels are {where}. Values must be of 0 to 255.")
    return images


def refuse_unit_range(images: Images) -> None:
    """Raises InputError for images whose values seem to be of 0 to 1."""
    if images.dtype.kind == "f" and 0 < images.max() <= 1:
        raise InputError(
            f"features: the largest pixel is {images.max():g}, as if values were of 0 to 1. They "
            "must be of 0 to 255: multiply by 255."
        )
