"""The six randomization tests of section 2.1: labels and pixels, (arrays, seed) -> arrays, on the host.

What is drawn for an example depends on the seed, the split and the example's index in its source alone: not on how many
examples are kept, nor on their order, the batch, the epoch or the devices. Every purpose has a stream of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from rethinking.errors import InputError, nearest

# What may replace the pixels (section 2.1).
PIXELS = ("none", "shuffled", "random", "gaussian")
# The numbers are part of every stream: changing one changes all results of that purpose.
_PURPOSES = {"labels": 0, "shuffled": 1, "random": 2, "gaussian": 3}
_SPLITS = {"train": 0, "test": 1}


def corrupt_labels(
    labels: Int[np.ndarray, " n"],
    indices: Int[np.ndarray, " n"],
    num_classes: int,
    probability: float | int,
    seed: int,
) -> Int[np.ndarray, " n"]:
    """Replaces each label, independently with `probability`, by a uniformly random class (section 2.1).

    The new class may be the old one: with k classes (1 - 1/k) * probability of the labels change. The same draws serve
    every probability, so a label corrupted at 0.1 is corrupted, to the same class, at every larger value. Probability 1
    is "random labels", 0 returns the labels as they are.

    Args:
        labels: classes, 0 to num_classes - 1.
        indices: each example's position in its source split.
        num_classes: k.
        probability: between 0 and 1.
        seed: `config.randomize.seed`.

    Raises:
        InputError: if the probability is outside [0, 1] or the seed is negative.
    """
    num_examples = int(indices.max(initial=-1)) + 1
    return label_corruption(num_examples, num_classes, probability, seed)(labels, indices)


def label_corruption(
    num_examples: int, num_classes: int, probability: float | int, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`corrupt_labels` as a function (labels, indices) -> labels, for indices below `num_examples`: draws only once."""
    if not 0 <= probability <= 1:
        raise InputError(f"randomize.labels is a probability, 0 to 1, not {probability}.")
    if probability == 0 or num_examples == 0:
        return lambda labels, indices: labels
    whether, which = _generator(seed, "labels").random((num_examples, 2)).T
    replaced, classes = whether < probability, (which * num_classes).astype(np.int32)
    return lambda labels, indices: np.where(
        replaced[indices], classes[indices].astype(labels.dtype), labels
    )


def shuffle_pixels(
    images: Shaped[np.ndarray, "n h w c"], seed: int
) -> Shaped[np.ndarray, "n h w c"]:
    """Moves the pixels of all images by one random permutation of the h * w positions, the same for every set.

    The channels of a pixel stay together. Raises InputError if the seed is negative.
    """
    n, h, w, c = images.shape
    order = _generator(seed, "shuffled").permutation(h * w)
    return images.reshape(n, h * w, c)[:, order].reshape(images.shape)


def random_pixels(
    images: Shaped[np.ndarray, "n h w c"], indices: Int[np.ndarray, " n"], seed: int, split: str
) -> Shaped[np.ndarray, "n h w c"]:
    """Moves the pixels of each image by a random permutation of its own; the channels of a pixel stay together.

    `split` is "train" or "test", `indices` each image's position in it. Raises InputError if the seed is negative.
    """
    n, h, w, c = images.shape
    pixels = images.reshape(n, h * w, c)
    moved = np.empty_like(pixels, subok=False)
    for row, generator in enumerate(_generators(seed, "random", split, indices)):
        moved[row] = pixels[row, generator.permutation(h * w)]
    return moved.reshape(images.shape)


def gaussian_pixels(
    shape: tuple[int, int, int],
    indices: Int[np.ndarray, " n"],
    mean: Float[np.ndarray, " c"],
    std: Float[np.ndarray, " c"],
    seed: int,
    split: str,
) -> Float[np.ndarray, "n h w c"]:
    """Images drawn from a Gaussian, float32, neither clipped nor rounded.

    Args:
        shape: of one image, (h, w, c).
        indices: each image's position in its split.
        mean: of each channel, in the unit of the pixels they stand for (0 to 255).
        std: of each channel, likewise.
        seed: `config.randomize.seed`; InputError if negative.
        split: "train" or "test".
    """
    images = np.empty((len(indices), *shape), np.float32)
    for image, generator in zip(images, _generators(seed, "gaussian", split, indices), strict=True):
        generator.standard_normal(out=image, dtype=np.float32)
    images *= std.astype(np.float32)
    images += mean.astype(np.float32)
    return images


def apply(dataset: Any, labels: float | int, pixels: str, seed: int) -> Any:
    """The data set of one randomization test; what a test leaves alone stays the very same array.

    Labels of the training set alone are corrupted. Pixels change in both sets: "shuffled" by one permutation, "random"
    and "gaussian" by draws of their own, the Gaussian with each channel's mean and variance over the training set.

    Args:
        dataset: what `rethinking.data.arrays.load` gives, its images cropped to what the network sees.
        labels: probability that a training label is replaced.
        pixels: one of `PIXELS`.
        seed: `config.randomize.seed`.

    Raises:
        InputError: if a setting is unknown or out of its range.
    """
    if pixels not in PIXELS:
        raise InputError(f"Unknown randomize.pixels {pixels!r}. {nearest(pixels, PIXELS)}")
    train, test = dataset.train, dataset.test
    corrupted = corrupt_labels(train.labels, train.indices, dataset.num_classes, labels, seed)
    train_images, test_images = _randomize_images(train, test, pixels, seed)
    return dataclasses.replace(
        dataset,
        train=dataclasses.replace(train, images=train_images, labels=corrupted),
        test=dataclasses.replace(test, images=test_images),
    )


def _randomize_images(train: Any, test: Any, pixels: str, seed: int) -> list[np.ndarray]:
    splits = {"train": train, "test": test}
    if pixels == "shuffled":
        return [shuffle_pixels(split.images, seed) for split in splits.values()]
    if pixels == "random":
        return [
            random_pixels(split.images, split.indices, seed, name) for name, split in splits.items()
        ]
    if pixels == "gaussian":
        mean, std = (
            train.images.mean((0, 1, 2), np.float64),
            train.images.std((0, 1, 2), np.float64),
        )
        shape = train.images.shape[1:]
        return [
            gaussian_pixels(shape, split.indices, mean, std, seed, name)
            for name, split in splits.items()
        ]
    return [split.images for split in splits.values()]


def _key(seed: int, purpose: str, split: str) -> np.ndarray:
    if seed < 0:
        raise InputError(f"randomize.seed must not be negative, but is {seed}.")
    return np.random.SeedSequence([seed, _PURPOSES[purpose], _SPLITS[split]]).generate_state(
        2, np.uint64
    )


def _generator(seed: int, purpose: str, split: str = "train") -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, split)))


def _generators(seed: int, purpose: str, split: str, indices: np.ndarray):
    """Yields a generator for each index: the index is the second word of Philox's counter, 2^66 draws from the next."""
    bits = np.random.Philox(key=_key(seed, purpose, split))
    generator, state = (
        np.random.Generator(bits),
        bits.state,
    )  # Far cheaper to move than a new Philox for each.
    for index in indices:
        state["state"]["counter"][:] = (0, index, 0, 0)
        bits.state = state
        yield generator
