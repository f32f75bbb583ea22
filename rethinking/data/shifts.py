"""Test sets that differ from the training set.

They are distorted versions of the test set, or other sets with the same classes. They show how
networks that fit the same training set behave on data that differ. The kinds of distortion are
those of Hendrycks and Dietterich (2019, arXiv 1903.12261), each at three strengths. They act on the
whole image, before the centre crop.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy
from jaxtyping import Shaped, UInt8

from rethinking.data import arrays
from rethinking.errors import InputError, require_known

Images = Shaped[np.ndarray, "n h w c"]
Bytes = UInt8[np.ndarray, "n h w c"]
STRENGTHS = (1, 2, 3)


def parse(text: str) -> list[str]:
    """The names of test sets in `text`, which are separated by commas.

    A distortion without a strength stands for all three: "noise" is "noise=1", "noise=2" and
    "noise=3". Every other name is the name of a data set.

    Raises:
        InputError: for an unknown distortion or strength.
    """
    names = []
    for part in text.split(","):
        name = part.strip()
        kind, equals, strength = name.partition("=")
        if equals:
            require_known(kind, DISTORTIONS, "Unknown distortion")
            if strength not in map(str, STRENGTHS):
                raise InputError(f"The strength of {name} is not known. Choose 1, 2 or 3.")
        if name in DISTORTIONS:
            names += [f"{kind}={step}" for step in STRENGTHS]
        elif name:
            names.append(name)
    return names


def check(text: str, like: arrays.Info, data_dir: str | None = None) -> None:
    """Raises InputError unless all test sets named in `text` fit the set that `like` describes."""
    for name in parse(text):
        if is_distortion(name):
            if like.kind != "image":
                raise InputError(
                    f"config.eval.shifts={name} distorts images, but these are examples of shape "
                    f"{like.example_shape}. Leave it out."
                )
            continue
        info = arrays.describe(name, data_dir, train=False)
        if (info.example_shape, info.num_classes) != (like.example_shape, like.num_classes):
            raise InputError(
                f"{name} has {info.num_classes} classes and examples of shape "
                f"{info.example_shape}, but the training set has {like.num_classes} and examples "
                f"of shape {like.example_shape}. Choose a test set with the same classes and shape."
            )
        theirs, ours = map(_names, (info.classes, like.classes))
        if theirs and ours and theirs != ours:
            pairs = enumerate(zip(theirs, ours, strict=True))
            number, (there, here) = next(pair for pair in pairs if len({*pair[1]}) > 1)
            raise InputError(
                f"Class {number} of {name} is {there!r}, but that of the training set is {here!r}. "
                "Give the classes the same names, so that they get the same numbers."
            )


def _names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of classes; none if they are only numbers, which libraries use as default."""
    return () if classes == tuple(map(str, range(len(classes)))) else classes


def is_distortion(name: str) -> bool:
    """Whether a name of `parse` is a distortion, such as "noise=1", and not a data set."""
    return name.partition("=")[0] in DISTORTIONS


def build(name: str, test: arrays.Split, seed: int, data_dir: str | None = None) -> arrays.Split:
    """The test set called `name`: a distorted version of `test`, or that of another data set.

    The random draws for an image depend only on the seed and the image's index.
    """
    kind, _, strength = name.partition("=")
    if not is_distortion(name):
        return arrays.load(name, data_dir, train=False).test
    generators = [np.random.default_rng((seed, int(index))) for index in test.indices]
    return dataclasses.replace(
        test, images=DISTORTIONS[kind](test.images, int(strength), generators)
    )


def noise(images: Images, strength: int, generators: list[np.random.Generator]) -> Bytes:
    """The images with Gaussian noise on every value.

    Its standard deviation is 4%, 8% or 16% of the distance from black to white.
    """
    deviation = 255 * (0.04, 0.08, 0.16)[strength - 1]
    draws = np.stack(
        [generator.standard_normal(images.shape[1:], np.float32) for generator in generators]
    )
    return _bytes(images + deviation * draws)


def contrast(images: Images, strength: int, generators: list[np.random.Generator]) -> Bytes:
    """The images with less contrast.

    Each channel's distance from its mean in the image is multiplied by 3/4, 1/2 or 1/4.
    """
    mean = images.mean((1, 2), keepdims=True, dtype=np.float32)
    return _bytes(mean + (1 - 0.25 * strength) * (images - mean))


def blur(images: Images, strength: int, generators: list[np.random.Generator]) -> Bytes:
    """The images after a Gaussian blur with a standard deviation of 0.5, 1 or 1.5 pixels.

    The image is reflected at its edges.
    """
    deviations = (0, strength / 2, strength / 2, 0)
    return _bytes(scipy.ndimage.gaussian_filter(images.astype(np.float32), deviations))


def translation(images: Images, strength: int, generators: list[np.random.Generator]) -> Images:
    """The images, moved by 2, 4 or 6 pixels along both axes, to one of four corners.

    The pixels at the edges are repeated.
    """
    by = 2 * strength
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="edge")
    _, h, w, _ = images.shape
    moved = np.empty_like(images, subok=False)
    for row, generator in enumerate(generators):
        top, left = 2 * by * generator.integers(0, 2, 2)
        moved[row] = padded[row, top : top + h, left : left + w]
    return moved


def _bytes(values: np.ndarray) -> Bytes:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


# Those that return bytes of 0 to 255.
CLIPPING = ("noise", "contrast", "blur")
DISTORTIONS: dict[str, Callable] = {
    "noise": noise,
    "contrast": contrast,
    "blur": blur,
    "translation": translation,
}
