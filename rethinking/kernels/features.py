"""Parts that both kinds of image features share: exact convolutions, batches, checks of images.

Images are [n, h, w, c] with values of 0 to 255. Features are float32, one row for each image.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from rethinking.errors import InputError

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
    rows = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        rows.append(np.asarray(features(batch, *arrays)))
    return np.concatenate(rows)


def check_images(images: Images, channels: int = 0, side: int = 1) -> None:
    """Raises InputError for no images, too small ones, other channels or infinite values.

    `channels` 0 allows any number.
    """
    n, h, w, c = images.shape
    if n == 0 or min(h, w) < side or (channels and c != channels):
        needed = f"at least one image of at least {side}x{side} pixels"
        if channels:
            needed += f" and {channels} channels"
        raise InputError(f"features of {n} images of {h}x{w}x{c}: give {needed}.")
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise InputError(
            "features: some pixels are NaN or infinite. Values must be finite, of 0 to 255."
        )
