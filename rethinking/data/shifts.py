"""Test sets that differ from the training set: distorted on the fly, or any other TFDS set of the same classes.

Readers of the paper ask how networks that fit the same training set behave where the data shift. The distortions are
those of Hendrycks and Dietterich (2019, arXiv 1903.12261) in kind, each at three strengths, and act on the whole image,
before the centre crop.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy
from jaxtyping import UInt8

from rethinking.data import arrays
from rethinking.errors import InputError, nearest

Images = UInt8[np.ndarray, "n h w c"]
STRENGTHS = (1, 2, 3)


def parse(text: str) -> list[str]:
    """The names in `config.eval.shifts`, which are separated by commas: a distortion stands for its three strengths.

    "noise" is "noise=1", "noise=2" and "noise=3"; what is no distortion is taken for a TFDS set. Raises InputError for
    a distortion or a strength that there is not.
    """
    names = []
    for name in filter(None, map(str.strip, text.split(","))):
        kind, equals, strength = name.partition("=")
        if equals and kind not in DISTORTIONS:
            raise InputError(
                f"config.eval.shifts: unknown distortion {kind!r}. {nearest(kind, DISTORTIONS)}"
            )
        if equals and strength not in map(str, STRENGTHS):
            raise InputError(f"config.eval.shifts: {name}: the strengths are 1, 2 and 3")
        names += [f"{kind}={step}" for step in STRENGTHS] if name in DISTORTIONS else [name]
    return names


def check(text: str, like: arrays.Info, data_dir: str | None = None) -> None:
    """Raises InputError unless every one of the names can be made, for a set described by `like`."""
    for name in parse(text):
        if "=" in name:
            continue
        info = arrays.describe(name, data_dir, train=False)
        if (info.image_shape, info.num_classes) != (like.image_shape, like.num_classes):
            raise InputError(
                f"config.eval.shifts: {name} has {info.num_classes} classes and images of {info.image_shape}, where "
                f"the training set has {like.num_classes} and {like.image_shape}: they must be the same"
            )


def build(name: str, test: arrays.Split, seed: int, data_dir: str | None = None) -> arrays.Split:
    """The test set called `name`: `test`, distorted, or the test set of a TFDS set.

    What is drawn for an image depends on the seed and its index alone.
    """
    kind, _, strength = name.partition("=")
    if kind not in DISTORTIONS:
        return arrays.load(name, data_dir, train=False).test
    generators = [np.random.default_rng((seed, int(index))) for index in test.indices]
    return dataclasses.replace(
        test, images=DISTORTIONS[kind](test.images, int(strength), generators)
    )


def noise(images: Images, strength: int, generators: list[np.random.Generator]) -> Images:
    """Gaussian noise on every value, with a standard deviation of 4%, 8% or 16% of the way from black to white."""
    deviation = 255 * (0.04, 0.08, 0.16)[strength - 1]
    draws = np.stack(
        [generator.standard_normal(images.shape[1:], np.float32) for generator in generators]
    )
    return _bytes(images + deviation * draws)


def contrast(images: Images, strength: int, generators: list[np.random.Generator]) -> Images:
    """Each channel's distance from its mean in the image times 3/4, 1/2 or 1/4."""
    mean = images.mean((1, 2), keepdims=True, dtype=np.float32)
    return _bytes(mean + (1 - 0.25 * strength) * (images - mean))


def blur(images: Images, strength: int, generators: list[np.random.Generator]) -> Images:
    """A Gaussian blur of half a pixel, one, or one and a half; edges are reflected."""
    return _bytes(
        scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, strength / 2, strength / 2, 0))
    )


def translation(images: Images, strength: int, generators: list[np.random.Generator]) -> Images:
    """Moved by 2, 4 or 6 pixels along both axes, to either side; edges are repeated."""
    by = 2 * strength
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="edge")
    _, h, w, _ = images.shape
    moved = np.empty_like(images, subok=False)
    for row, generator in enumerate(generators):
        top, left = 2 * by * generator.integers(0, 2, 2)
        moved[row] = padded[row, top : top + h, left : left + w]
    return moved


def _bytes(values: np.ndarray) -> Images:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


DISTORTIONS: dict[str, Callable] = {
    "noise": noise,
    "contrast": contrast,
    "blur": blur,
    "translation": translation,
}
