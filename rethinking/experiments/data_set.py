"""The data set that a config describes, in memory."""

from ml_collections import ConfigDict

from rethinking.data import arrays
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
    """The sizes of the data set, before images are chosen. See `arrays.describe`."""
    return arrays.describe(
        config.data.name, config.data.data_dir or None, evaluation=evaluation(config)
    )


def load(config: ConfigDict) -> Dataset[arrays.Split]:
    """The images that the config chooses, and their labels on disk. See `arrays.load`."""
    data = config.data
    return arrays.load(
        data.name,
        data.data_dir or None,
        data.num_train,
        config.seed,
        data.get("num_test", 0),
        evaluation=evaluation(config),
    )


def vocab_size(config: ConfigDict) -> int:
    """The number of tokens of a set of token sequences: its largest token plus 1.

    It is that of the whole set, whatever part `config` chooses. Raises InputError for a negative
    token.
    """
    data = config.data
    dataset = arrays.load(data.name, data.data_dir or None, evaluation=evaluation(config))
    tokens = [split.images for split in (dataset.train, dataset.test) if split.images.size]
    lowest = min(int(array.min()) for array in tokens)
    require(
        lowest >= 0,
        f"{data.name} has the token {lowest}, but tokens are numbers from 0 on. Renumber them.",
    )
    return 1 + max(int(array.max()) for array in tokens)


def evaluation(config: ConfigDict) -> Evaluation:
    """What to evaluate. Experiments that evaluate nothing need no test set."""
    return Evaluation(config.data.eval_split, config.data.test_fraction, evaluates(config))


def evaluates(config: ConfigDict) -> bool:
    """Whether an experiment of this kind uses a test set."""
    if config.kind == "complexity":
        return config.measure == "stability"
    return config.kind != "expressivity"
