"""The data set that a config describes, in memory."""

import dataclasses

import numpy as np
from jaxtyping import Float64
from ml_collections import ConfigDict

from rethinking.data import arrays, vectors
from rethinking.data.source import Dataset, Info
from rethinking.data.splits import Evaluation
from rethinking.errors import require


def check(config: ConfigDict) -> None:
    """Raises InputError for settings of the test set that are invalid or have no effect."""
    evaluation(config).check()
    require(
        evaluates(config) or not (config.data.eval_split or config.data.test_fraction),
        "config.data.eval_split and config.data.test_fraction have no effect here, because this "
        "experiment evaluates no test set. Keep their defaults.",
    )


def describe(config: ConfigDict) -> Info:
    """The sizes of the data set, before examples are chosen. See `arrays.describe`."""
    return arrays.describe(
        config.data.name, config.data.data_dir or None, evaluation=evaluation(config)
    )


def load(config: ConfigDict) -> Dataset[arrays.Split]:
    """The examples that the config chooses, and their labels on disk. See `arrays.load`."""
    data = config.data
    return arrays.load(
        data.name,
        data.data_dir or None,
        data.num_train,
        config.seed,
        data.get("num_test", 0),
        evaluation=evaluation(config),
    )


def standardized(dataset: Dataset[arrays.Split]) -> Dataset[arrays.Split]:
    """The set with its vectors standardized by the training set. Other examples stay the same."""
    train, test = dataset.train, dataset.test
    if train.images.ndim > 2 or train.images.dtype != np.float32:
        return dataset
    x_train, x_test = vectors.standardize(train.images, test.images)
    return dataclasses.replace(
        dataset,
        train=dataclasses.replace(train, images=x_train),
        test=dataclasses.replace(test, images=x_test),
    )


def features(images: arrays.Examples) -> Float64[np.ndarray, "n d"]:
    """What a linear model sees: pixels divided by 255, or vectors as they are."""
    unit = 255 if images.ndim > 2 else 1
    return np.divide(images.reshape(len(images), -1), unit, dtype=np.float64)


def refuse_tokens(config: ConfigDict, info: Info, experiment: str) -> None:
    """Raises InputError for tokens. `experiment` names the field that needs numbers."""
    require(
        info.kind != "tokens",
        f"{experiment} uses linear functions of the examples, but {config.data.name} has sequences "
        f"of {info.example_shape[0]} tokens. A token is a name and not a size. Choose a set of "
        "images or vectors.",
    )


def vocab_size(config: ConfigDict) -> int:
    """The number of tokens of a set of token sequences: its largest token plus 1.

    It is that of the whole set, whatever part of it `config` chooses.
    """
    data = config.data
    dataset = arrays.load(data.name, data.data_dir or None, evaluation=evaluation(config))
    return 1 + max(int(split.images.max(initial=0)) for split in (dataset.train, dataset.test))


def evaluation(config: ConfigDict) -> Evaluation:
    """What to evaluate. Experiments that evaluate nothing need no test set."""
    return Evaluation(config.data.eval_split, config.data.test_fraction, evaluates(config))


def evaluates(config: ConfigDict) -> bool:
    """Whether an experiment of this kind uses a test set."""
    if config.kind == "complexity":
        return config.measure == "stability"
    return config.kind != "expressivity"
