"""The six randomization tests of section 2.1, as functions (arrays, seed) -> arrays on the host.

The random draws for an example depend only on the seed, the split and the example's index in its
source. They do not depend on the number of examples, their order, the batch, the epoch or the
devices. Labels and each kind of pixels have their own random stream.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from rethinking.errors import InputError, require_known

# What may replace the pixels (section 2.1).
PIXELS = ("none", "shuffled", "random", "gaussian")
# These numbers are part of the streams. Changing one changes all results of that purpose.
_PURPOSES = {"labels": 0, "shuffled": 1, "random": 2, "gaussian": 3}
_SPLITS = {"train": 0, "test": 1}


def corrupt_labels(
    labels: Int[np.ndarray, " n"],
    indices: Int[np.ndarray, " n"],
    num_classes: int,
    probability: float | int,
    seed: int,
) -> Int[np.ndarray, " n"]:
    """The labels, each replaced with `probability` by a uniformly random class (section 2.1).

    Labels are replaced independently. The new class may be the old one, so with k classes a
    fraction (1 - 1/k) * probability of the labels changes. All probabilities use the same draws: a
    label that is replaced at 0.1 is replaced by the same class at every larger probability.
    Probability 1 is "random labels". Probability 0 returns `labels` itself.

    Args:
        labels: classes, 0 to num_classes - 1.
        indices: the position of each example in its source split.
        num_classes: k.
        probability: between 0 and 1.
        seed: seed of the corruption, not negative.

    Raises:
        InputError: if the probability is outside [0, 1] or the seed is negative.
    """
    num_examples = int(indices.max(initial=-1)) + 1
    return label_corruption(num_examples, num_classes, probability, seed)(labels, indices)


def label_corruption(
    num_examples: int, num_classes: int, probability: float | int, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`corrupt_labels` as a function (labels, indices) -> labels, which draws only once.

    The function takes indices below `num_examples`.
    """
    if not 0 <= probability <= 1:
        raise InputError(
            f"randomize.labels={probability} is not a probability. Choose a number from 0 to 1."
        )
    if probability == 0 or num_examples == 0:
        return lambda labels, indices: labels
    whether, which = _generator(seed, "labels").random((num_examples, 2)).T
    replaced = whether < probability
    classes = (which * num_classes).astype(np.int32)

    def corrupt(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.where(replaced[indices], classes[indices].astype(labels.dtype), labels)

    return corrupt


def shuffle_pixels(
    images: Shaped[np.ndarray, "n h w c"], seed: int
) -> Shaped[np.ndarray, "n h w c"]:
    """The images with their pixels moved by one random permutation of the h * w positions.

    The permutation depends on the seed alone, so it is the same for training and test images. The
    channels of a pixel stay together. Raises InputError if the seed is negative.
    """
    n, h, w, c = images.shape
    order = _generator(seed, "shuffled").permutation(h * w)
    return images.reshape(n, h * w, c)[:, order].reshape(images.shape)


def random_pixels(
    images: Shaped[np.ndarray, "n h w c"], indices: Int[np.ndarray, " n"], seed: int, split: str
) -> Shaped[np.ndarray, "n h w c"]:
    """The images with the pixels of each one moved by its own random permutation.

    The channels of a pixel stay together. `split` is "train" or "test"; `indices` are the positions
    of the images in it. Raises InputError if the seed is negative.
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
    """Images drawn from a Gaussian, in float32, neither clipped nor rounded.

    Args:
        shape: (h, w, c) of one image.
        indices: the position of each image in its split.
        mean: the mean of each channel, in the unit of pixels, 0 to 255.
        std: the standard deviation of each channel, in the same unit.
        seed: seed of the corruption.
        split: "train" or "test".

    Raises:
        InputError: if the seed is negative.
    """
    images = np.empty((len(indices), *shape), np.float32)
    for image, generator in zip(images, _generators(seed, "gaussian", split, indices), strict=True):
        generator.standard_normal(out=image, dtype=np.float32)
    images *= std.astype(np.float32)
    images += mean.astype(np.float32)
    return images


def apply(dataset: Any, labels: float | int, pixels: str, seed: int) -> Any:
    """The data set of one randomization test. An array that the test does not change is not copied.

    Only training labels are replaced. Pixels change in both sets: "shuffled" by one permutation,
    "random" by a permutation for each image, "gaussian" by a draw for each image. The Gaussian has
    the mean and variance of each channel over the training set.

    Args:
        dataset: a data set of `rethinking.data.arrays.load`, with images cropped to what the
            network sees.
        labels: probability that a training label is replaced.
        pixels: one of `PIXELS`.
        seed: seed of the corruption, not negative.

    Raises:
        InputError: if a setting is unknown or out of its range.
    """
    require_known(pixels, PIXELS, "Unknown randomize.pixels")
    train, test = dataset.train, dataset.test
    corrupted = corrupt_labels(train.labels, train.indices, dataset.num_classes, labels, seed)
    train_images, test_images = _randomize_images(train, test, pixels, seed)
    return dataclasses.replace(
        dataset,
        train=dataclasses.replace(train, images=train_images, labels=corrupted),
        test=dataclasses.replace(test, images=test_images),
    )


def _randomize_images(train: Any, test: Any, pixels: str, seed: int) -> list[np.ndarray]:
    """The training images and the test images."""
    splits = {"train": train, "test": test}
    if pixels == "shuffled":
        return [shuffle_pixels(split.images, seed) for split in splits.values()]
    if pixels == "random":
        return [
            random_pixels(split.images, split.indices, seed, name) for name, split in splits.items()
        ]
    if pixels == "gaussian":
        mean = train.images.mean((0, 1, 2), np.float64)
        std = train.images.std((0, 1, 2), np.float64)
        shape = train.images.shape[1:]
        return [
            gaussian_pixels(shape, split.indices, mean, std, seed, name)
            for name, split in splits.items()
        ]
    return [split.images for split in splits.values()]


def _key(seed: int, purpose: str, split: str) -> np.ndarray:
    if seed < 0:
        raise InputError(f"randomize.seed={seed} is negative. Choose 0 or a larger number.")
    sequence = np.random.SeedSequence([seed, _PURPOSES[purpose], _SPLITS[split]])
    return sequence.generate_state(2, np.uint64)


def _generator(seed: int, purpose: str, split: str = "train") -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, split)))


def _generators(seed: int, purpose: str, split: str, indices: np.ndarray):
    """Yields a generator for each index.

    The index is the second word of Philox's counter, so the streams of two indices are at least
    2^66 draws apart. Moving one Philox is much faster than making one for each index.
    """
    bits = np.random.Philox(key=_key(seed, purpose, split))
    generator = np.random.Generator(bits)
    state = bits.state
    for index in indices:
        state["state"]["counter"][:] = (0, index, 0, 0)
        bits.state = state
        yield generator
