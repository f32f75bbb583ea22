"""Single pictures, their encoding, and interpolation in NumPy."""

import io

import numpy as np
from PIL import Image


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image, kind="png", **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def interpolate(image, size, weights):
    """A separable interpolation: `weights` maps distances, in pixels of the image, to weights."""
    image = image.astype(np.float64)
    for axis in (0, 1):
        side = image.shape[axis]
        centers = (np.arange(size) + 0.5) * side / size - 0.5
        taps = np.floor(centers).astype(int)[:, None] + np.arange(-1, 3)
        matrix = np.zeros((size, side))
        np.add.at(
            matrix,
            (np.arange(size)[:, None], taps.clip(0, side - 1)),
            weights(np.abs(centers[:, None] - taps)),
        )
        image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return image


def linear(distance):
    return np.maximum(1 - distance, 0)
