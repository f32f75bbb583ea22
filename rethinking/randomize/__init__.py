"""The six randomization tests of section 2.1, as functions (arrays, seed) -> arrays on the host.

These functions can be used alone, on arrays of your own: see docs/library.md. They do not need JAX.

An example is an image, a vector of numbers or a sequence of tokens. The shape of the array says
which:

    [n, height, width, channels]   images; the channels of a pixel stay together
    [n, height, width]             images of one channel
    [n, d]                         vectors; a "pixel" is a feature
    [n, length] of integers        sequences of tokens; a "pixel" is a token

The random draws for an example depend only on the seed, the split and the example's index in its
source. They do not depend on the number of examples, their order, the batch, the epoch or the
devices. Labels and each kind of pixels have their own random stream.
"""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, Shaped
from numpy.typing import ArrayLike

from rethinking.errors import require, require_known
from rethinking.randomize import arguments
from rethinking.randomize.streams import generator_of, generators_of

# What may replace the pixels (section 2.1).
PIXELS = ("none", "shuffled", "random", "gaussian")
# The labels of all examples up to the largest index are drawn: 16 bytes each.
_MOST_EXAMPLES = 10**9


def corrupt_labels(
    labels: ArrayLike,
    indices: ArrayLike | None = None,
    num_classes: int | None = None,
    probability: float | int = 1.0,
    seed: int = 0,
) -> Integer[np.ndarray, " n"]:
    """The labels, each replaced with `probability` by a uniformly random class (section 2.1).

    Labels are replaced independently. The new class may be the old one, so with k classes a
    fraction (1 - 1/k) * probability of the labels changes. All probabilities use the same draws: a
    label that is replaced at 0.1 is replaced by the same class at every larger probability.
    Probability 1 is "random labels". Probability 0 returns the labels themselves.

    Args:
        labels: whole numbers [n], the classes 0 to num_classes - 1. The result has their dtype.
        indices: the position of each example in its source split; None means 0 to n - 1.
        num_classes: k; None means the largest label plus 1.
        probability: between 0 and 1.
        seed: seed of the corruption, not negative.

    Raises:
        InputError: if labels or indices are not whole numbers, differ in length or are out of their
            range; if a class has no label and `num_classes` is None; if the probability is outside
            [0, 1]; or if the seed is negative.
    """
    labels = arguments.as_labels(labels)
    indices = arguments.as_indices(indices, len(labels))
    num_classes = arguments.as_num_classes(num_classes, labels)
    largest = int(indices.max()) if len(indices) else -1
    require(
        largest < _MOST_EXAMPLES,
        f"The index {largest} is too large. Indices are positions in the training set, so they are "
        "less than the number of its examples.",
    )
    return label_corruption(largest + 1, num_classes, probability, seed)(labels, indices)


def label_corruption(
    num_examples: int, num_classes: int, probability: float | int, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`corrupt_labels` as a function (labels, indices) -> labels, which draws only once.

    The function takes indices below `num_examples`. It does not check its arguments.
    """
    require(
        isinstance(probability, numbers.Real) and 0 <= probability <= 1,
        f"{probability} is not a probability of random labels. Choose a number from 0 to 1.",
    )
    generator = generator_of(seed, "labels")
    if probability == 0 or num_examples == 0:
        return lambda labels, indices: labels
    whether, which = generator.random((num_examples, 2)).T
    replaced = whether < probability
    classes = (which * num_classes).astype(np.int32)

    def corrupt(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.where(replaced[indices], classes[indices].astype(labels.dtype), labels)

    return corrupt


def shuffle_pixels(examples: ArrayLike, seed: int = 0) -> Shaped[np.ndarray, " n *example"]:
    """The examples with their pixels moved by one random permutation of the positions.

    The permutation depends on the seed and the number of positions alone. So it is the same for
    training and test examples. Raises InputError for arrays that are not examples, and for a
    negative seed.
    """
    return _shuffle(arguments.as_examples(examples), seed)


def random_pixels(
    examples: ArrayLike, indices: ArrayLike | None = None, seed: int = 0, split: str = "train"
) -> Shaped[np.ndarray, " n *example"]:
    """The examples with the pixels of each one moved by its own random permutation.

    Args:
        examples: in one of the shapes at the top of this module.
        indices: the position of each example in its split; None means 0 to n - 1.
        seed: seed of the corruption, not negative.
        split: "train" or "test". The two have different draws.

    Raises:
        InputError: for arrays that are not examples, indices that do not fit them, another split,
            or a negative seed.
    """
    examples = arguments.as_examples(examples)
    return _permute(examples, arguments.as_indices(indices, len(examples)), seed, split)


def gaussian_pixels(
    examples: ArrayLike,
    indices: ArrayLike | None = None,
    seed: int = 0,
    split: str = "train",
    like: ArrayLike | None = None,
) -> Float32[np.ndarray, " n *example"]:
    """Gaussian noise in place of the examples, in float32, neither clipped nor rounded.

    The noise has the mean and the variance of each channel of images, or of each feature of
    vectors, over all examples in `like`.

    Args:
        examples: in one of the shapes at the top of this module, but not tokens.
        indices: the position of each example in its split; None means 0 to n - 1.
        seed: seed of the corruption, not negative.
        split: "train" or "test". The two have different draws.
        like: the training examples; None means `examples`.

    Raises:
        InputError: as `random_pixels`; also for tokens, and for examples that are not finite.
    """
    examples = arguments.as_examples(examples)
    like = examples if like is None else arguments.as_examples(like)
    require(
        like.shape[1:] == examples.shape[1:],
        f"The examples have the shape {examples.shape[1:]}, but those of `like` have "
        f"{like.shape[1:]}. Give training examples of the same shape.",
    )
    indices = arguments.as_indices(indices, len(examples))
    return _noise(examples.shape[1:], indices, _moments(like), seed, split)


def apply(dataset: Any, labels: float | int, pixels: str, seed: int) -> Any:
    """The data set of one randomization test. An array that the test does not change is not copied.

    Only training labels are replaced. Pixels change in both sets: "shuffled" by one permutation,
    "random" by a permutation for each example, "gaussian" by a draw for each example. The Gaussian
    has the mean and variance of each channel or feature over the training set.

    Args:
        dataset: a data set of `rethinking.data.arrays.load`, as the network sees it: images are
            cropped, and vectors are standardized.
        labels: probability that a training label is replaced.
        pixels: one of `PIXELS`.
        seed: seed of the corruption, not negative.

    Raises:
        InputError: if a setting is unknown or out of its range; also for Gaussian tokens.
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
    """The training examples and the test examples."""
    splits = {"train": train, "test": test}
    if pixels == "shuffled":
        return [_shuffle(split.images, seed) for split in splits.values()]
    if pixels == "random":
        return [_permute(split.images, split.indices, seed, name) for name, split in splits.items()]
    if pixels == "gaussian":
        moments = _moments(train.images)
        shape = train.images.shape[1:]
        return [_noise(shape, split.indices, moments, seed, name) for name, split in splits.items()]
    return [split.images for split in splits.values()]


def _shuffle(examples: np.ndarray, seed: int) -> np.ndarray:
    pixels = _pixels(examples)
    order = generator_of(seed, "shuffled").permutation(pixels.shape[1])
    return pixels[:, order].reshape(examples.shape)


def _permute(examples: np.ndarray, indices: np.ndarray, seed: int, split: str) -> np.ndarray:
    pixels = _pixels(examples)
    moved = np.empty_like(pixels, subok=False)
    for row, generator in enumerate(generators_of(seed, "random", split, indices)):
        moved[row] = pixels[row, generator.permutation(pixels.shape[1])]
    return moved.reshape(examples.shape)


class _Moments(NamedTuple):
    """Mean and standard deviation of each channel [c], of each feature [d], or of all values []."""

    mean: np.ndarray
    std: np.ndarray


def _moments(examples: np.ndarray) -> _Moments:
    require(
        not arguments.is_tokens(examples),
        "Tokens cannot be replaced by Gaussian noise, because a token is a name and not a size. "
        "Choose shuffled or random tokens. If these are vectors, convert them to float32.",
    )
    require(len(examples) > 0, "There is no example to take mean and variance of. Give some.")
    axes = (0,) if examples.ndim == 2 else (0, 1, 2)
    with np.errstate(invalid="ignore"):  # The result says it.
        moments = _Moments(examples.mean(axes, np.float64), examples.std(axes, np.float64))
    require(
        bool(np.isfinite(moments.mean).all() and np.isfinite(moments.std).all()),
        "The examples hold values that are not finite, so they have no mean and no variance. "
        "Replace or remove these values.",
    )
    return moments


def _noise(
    shape: tuple[int, ...], indices: np.ndarray, moments: _Moments, seed: int, split: str
) -> np.ndarray:
    images = np.empty((len(indices), *shape), np.float32)
    generators = generators_of(seed, "gaussian", split, indices)
    for image, generator in zip(images, generators, strict=True):
        generator.standard_normal(out=image, dtype=np.float32)
    images *= moments.std.astype(np.float32)
    images += moments.mean.astype(np.float32)
    return images


def _pixels(examples: np.ndarray) -> np.ndarray:
    """The examples as [n, positions] or [n, positions, channels]."""
    n, *sides = examples.shape
    channels = sides[2:]
    return examples.reshape(n, int(np.prod(sides[:2])), *channels)
