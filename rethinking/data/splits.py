"""Which examples are for training and which for evaluation."""

import dataclasses

import numpy as np
from jaxtyping import Int64

from rethinking.data.description import HELD_OUT, Description, Info, Source
from rethinking.errors import InputError, require, require_known

# The splits to evaluate, in the order in which they are looked for.
EVALUATED = (
    "test",
    "validation",
    "valid",
    "val",
    "dev",
    "eval",
    "test_matched",
    "validation_matched",
)
# Decides which examples are held out. It is a constant, so all runs hold out the same ones.
_SEED = int.from_bytes(b"held out")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Which examples to evaluate.

    Attributes:
        split: the name of a split; "" means the first one of `EVALUATED` that has labels.
        fraction: if above 0, this part of the training split is evaluated instead. It is then no
            longer trained on.
        needed: whether there must be examples to evaluate.
    """

    split: str = ""
    fraction: float = 0.0
    needed: bool = True

    def check(self) -> None:
        """Raises InputError for settings that cannot work on any set."""
        require(
            0 <= self.fraction < 1,
            f"config.data.test_fraction={self.fraction}: must be at least 0 and below 1.",
        )
        require(
            not (self.split and self.fraction),
            f"config.data.eval_split={self.split} has no effect beside "
            f"config.data.test_fraction={self.fraction}, which evaluates a part of the training "
            "split. Set one of the two.",
        )
        require(
            self.split != "train",
            "config.data.eval_split=train would evaluate the training examples. To hold some of "
            "them out, set config.data.test_fraction instead.",
        )

    def choose(self, description: Description) -> Source:
        """The set, with the split to evaluate; without one if there is none and none is needed.

        A split that is the only choice is not read here: see `require_labels`.
        """
        if self.split:
            require_known(
                self.split,
                description.splits,
                f"config.data.eval_split: {description.name} has no split",
            )
            return description.source(self.split)
        found = []
        for name in EVALUATED:
            if name in description.splits and description.size(name):
                found.append(name)
        must = self.needed and not self.fraction
        if len(found) == 1 and must:
            return description.source(found[0])
        for name in found:
            source = description.source(name)
            if source.has_labels():
                return source
        source = description.source(None)
        if must:
            raise _nothing_to_evaluate(source, found)
        return source

    def require_labels(self, source: Source) -> None:
        """Raises InputError if the records to evaluate have no labels."""
        if self.needed and not self.fraction and not source.has_labels():
            if self.split:
                raise _nothing_in(source, self.split)
            raise _nothing_to_evaluate(source, [source.names["test"]])

    def held_out(self, info: Info) -> Info:
        """`info` after a part of the training set is held out, if one is."""
        if not self.fraction:
            return info
        train, test = hold_out(info.num_train, self.fraction)
        return dataclasses.replace(
            info, num_train=len(train), num_test=len(test), eval_split=HELD_OUT
        )


def _nothing_in(source: Source, split: str) -> InputError:
    """The error for a split that was asked for, and that cannot be evaluated."""
    problem = "its examples have no labels" if source.info.num_test else "it has no examples"
    others = _others(source, [split])
    choose = f"Choose another split of {source.name} ({', '.join(others)}). " if others else ""
    return InputError(
        f"config.data.eval_split={split}: {problem}. {choose}To evaluate a part of the training "
        "examples, leave eval_split empty and set config.data.test_fraction, such as 0.1."
    )


def _nothing_to_evaluate(source: Source, unlabelled: list[str]) -> InputError:
    others = _others(source, unlabelled)
    remedy = "Hold out a part of the training examples, such as config.data.test_fraction=0.1."
    if others:
        remedy = (
            f"Name the split to evaluate, such as config.data.eval_split={others[0]}. Or hold out "
            "a part of the training examples, such as config.data.test_fraction=0.1."
        )
    without = "".join(f" {name} has no labels." for name in unlabelled)
    return InputError(
        f"{source.name} has no test examples with labels. It needs the splits train and test (or "
        f"validation, valid, val, dev), and has {', '.join(source.splits)}.{without} {remedy}"
    )


def _others(source: Source, without: list[str]) -> list[str]:
    """The splits of the set that may be evaluated instead of those in `without`."""
    return [name for name in source.splits if name not in ("train", *without)]


def hold_out(
    total: int, fraction: float
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """The records of the training split to train on, and those to evaluate, each in order.

    They depend on the arguments alone. A larger fraction holds out all examples of a smaller one.
    Raises InputError if one of the two would be empty.
    """
    num = round(fraction * total)
    require(
        not fraction or 0 < num < total,
        f"config.data.test_fraction={fraction} of {total:,} training examples is {num:,}. Choose "
        "a fraction that leaves some for training and some for evaluation.",
    )
    order = np.random.default_rng(_SEED).permutation(total)
    return np.sort(order[num:]), np.sort(order[:num])


def choose_records(
    info: Info, evaluation: Evaluation, num_train: int, num_test: int, seed: int
) -> list[tuple[str, Int64[np.ndarray, " n"]]]:
    """The records to train on and those to evaluate: their split on disk and their indices in it.

    `num_train` and `num_test` are the numbers of records to keep, the first ones of a permutation
    that `seed` determines; 0 keeps all, in order.
    """
    if evaluation.fraction:
        train, test = hold_out(info.train_size, evaluation.fraction)
        test_key = "train"
    else:
        train, test = np.arange(info.num_train), np.arange(info.num_test)
        test_key = "test"
    return [
        ("train", train[subset(len(train), num_train, seed)]),
        (test_key, test[subset(len(test), num_test, seed)]),
    ]


def subset(total: int, num: int, seed: int) -> Int64[np.ndarray, " n"]:
    """The records to use: the first `num` of a seeded permutation, or all in order if it is 0."""
    if num == 0:
        return np.arange(total)
    return np.random.default_rng(seed).permutation(total)[:num]
