"""A set of pictures of differing sizes, and its batches."""

import itertools

import numpy as np

from rethinking.data import stream
from rethinking.data.pipeline import Reading
from tests.data.pictures import encode, noise
from tests.data.sets import CLASSES, example, write_features, write_info, write_shards

SHARDS, SIZE = {"train": [13, 10], "validation": [7]}, 16


NUM = sum(SHARDS["train"])


def write(root, damage=None, channels=3):
    """Writes the set "pictures", noise of differing sizes, to the folder `root`.

    `damage` maps the records of the training set to those that are written instead. Returns the
    images and the labels of each split.
    """
    folder = root / "pictures" / "1.0.0"
    folder.mkdir(parents=True)
    rng, splits, held = np.random.default_rng(0), [], {}
    for name, lengths in SHARDS.items():
        images = []
        for seed in range(sum(lengths)):
            images.append(noise(rng.integers(20, 40), rng.integers(20, 40), seed))
        labels = rng.integers(0, CLASSES, sum(lengths)).astype(np.int32)
        held[name] = images, labels
        records = []
        for image, label in zip(images, labels, strict=True):
            records.append(example(encode(image), label))
        if damage and name == "train":
            records = damage(records)
        splits.append(write_shards(folder, name, records, lengths))
    write_info(folder, splits)
    write_features(folder, shape=(-1, -1, channels))
    return held


def load(root, **subset):
    return stream.load("pictures", str(root), **subset)


def train(split, num_batches, batch_size=4, seed=0, box=True, first_step=0, **reading):
    reading = Reading(**{"num_threads": 2} | reading)
    batches = stream.train_batches(split, batch_size, SIZE, seed, box, reading, first_step)
    taken = list(itertools.islice(batches, num_batches))
    batches.close()
    return taken


def evaluate(split, batch_size=4, **reading):
    reading = Reading(**{"num_threads": 2} | reading)
    return list(stream.eval_batches(split, batch_size, SIZE, reading))


def joined(batches):
    return stream.Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for field, there in zip(batch, other, strict=True):
            assert field.dtype == there.dtype
            np.testing.assert_array_equal(field, there)
