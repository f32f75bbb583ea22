"""Uniform stability, estimated: trains a network on S, and on S with one example replaced.

Both trainings start from the same weights and use the same order. The new example takes the place
of the old one. The new, "fresh" examples come from the rest of the training set, with labels as
random as those of S. Losses are compared on S, on the fresh examples and on the test set. As a
control, the network is trained on S twice. A change there comes from the hardware, which may add
numbers in another order.

metrics.jsonl has a line for each epoch of each replacement (null: the control):

- `replacement`, `epoch`, `step`;
- `max_change`, `mean_change`, `own_change` of the cross-entropy: see `complexity.changes`;
- `changed_predictions`: the fraction of examples that the two networks classify differently;
- `train_loss`, `test_loss`, `train_accuracy`, `test_accuracy` after training on S;
- in the last epoch, norms and margins of the network trained on S.
"""

import functools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from rethinking.errors import InputError
from rethinking.experiments import data_set, examples, trials
from rethinking.experiments.trials import Line, Log, Repetition
from rethinking.theory import complexity
from rethinking.training import margins

_LOG = logging.getLogger(__name__)
CHANGES = ("max_change", "mean_change", "own_change", "changed_predictions")
TRAINED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def estimate(config: ConfigDict, log: Log) -> Line | None:
    """The fields of the result, from `config.replacements` replacements of one example each.

    - `max_change`, `own_change`: the largest of all replacements, after the last epoch.
    - `mean_change`, `changed_predictions`: means over the replacements, after the last epoch.
    - `repeat_max_change`, `repeat_mean_change`: the changes of the control.
    - losses, accuracies, norms and margins: those of training on S.
    - `curve`: a dictionary with the changes, losses and accuracies for each epoch.

    Returns None if time runs out first. Raises InputError if the training set has too few examples
    to replace others.
    """
    twins = Twins(config)
    for r in (None, *range(config.replacements)):
        logged = {line["epoch"] for line in log.lines(replacement=r)}
        if logged >= set(range(config.max_epochs + 1)):
            continue
        if log.late():
            return None
        for epoch, line in enumerate(twins.compare(r)):
            # A run that was killed during this replacement has logged its first epochs.
            if epoch not in logged:
                log.append({"replacement": r, "epoch": epoch} | line)
        _LOG.info(
            "%s: losses change by %.3g on average, %.3g at most",
            "control" if r is None else f"replacement {r}",
            line["mean_change"],
            line["max_change"],
        )
    return _summary(config, log) | {"eval_split": twins.eval_split}


class After(NamedTuple):
    """Measurements after an epoch: on the examples of S, then the fresh ones, then the test set."""

    losses: Float[np.ndarray, " points"]
    predictions: Int[np.ndarray, " points"]
    network: Line  # norms and margins on S; empty before the last epoch


class Twins:
    """Trains on S, and on S with the example at `positions[r]` replaced by fresh example r."""

    def __init__(self, config: ConfigDict):
        self.num_train = check_sizes(config)
        settings = config.copy_and_resolve_references()
        settings.data.num_train = self.num_train + config.replacements
        data = examples.load(settings)
        self.positions = np.random.default_rng(config.seed).choice(
            self.num_train, config.replacements, replace=False
        )
        self.eval_split = data.eval_split
        self._repetition = Repetition(config, self.num_train, data.num_classes)
        self._max_epochs = config.max_epochs
        self._train, self._test = map(self._repetition.programs.place, (data.train, data.test))
        self._indices = data.train.indices[: self.num_train]
        self._labels = np.concatenate([data.train.labels, data.test.labels])

    def compare(self, r: int | None) -> Iterator[Line]:
        """Trains with replacement r, or on S again for None; yields the differences from S.

        The first line is for the start, the others for the epochs.
        """
        position, fresh = 0, 0
        replaced = np.zeros(len(self._labels), bool)
        if r is not None:
            position, fresh = int(self.positions[r]), self.num_train + r
            replaced[[position, fresh]] = True
        step = self._repetition.programs.steps_per_epoch
        pairs = zip(self.original, self.train(position, fresh), strict=True)
        for epoch, (before, after) in enumerate(pairs):
            differences = self._differences(before, after, replaced)
            yield {"step": epoch * step} | differences | before.network

    @functools.cached_property
    def original(self) -> list[After]:
        """The training on S."""
        return list(self.train(0, 0))

    def train(self, position: int, source: int) -> Iterator[After]:
        """Trains on S with the example at `position` replaced by the one at `source`.

        `source` counts the examples of S first and then the fresh ones.
        """
        points, labels = (
            array[: self.num_train].at[position].set(array[source]) for array in self._train
        )
        programs = self._repetition.programs
        for epoch, state in self._repetition.states(points, labels, self._indices):
            logits = np.concatenate(
                [programs.logits(state, split[0]) for split in (self._train, self._test)]
            )
            network: Line = {}
            if epoch == self._max_epochs:
                n = self.num_train
                network = margins.norms_and_margins(
                    state.evaluated["params"], logits[:n], self._labels[:n]
                )
            yield After(complexity.losses(logits, self._labels), logits.argmax(1), network)

    def _differences(
        self, before: After, after: After, replaced: Bool[np.ndarray, " points"]
    ) -> Line:
        correct = before.predictions == self._labels
        parts = {"train": slice(self.num_train), "test": slice(len(self._train[1]), None)}
        return {
            **complexity.changes(before.losses, after.losses, replaced),
            "changed_predictions": float((before.predictions != after.predictions).mean()),
            **{f"{name}_loss": float(before.losses[part].mean()) for name, part in parts.items()},
            **{f"{name}_accuracy": float(correct[part].mean()) for name, part in parts.items()},
        }


def check_sizes(config: ConfigDict) -> int:
    """The size of S. Raises InputError if the training set has too few examples beside it.

    It reads only the set's description.
    """
    there = data_set.describe(config).num_train
    n = config.data.num_train or there - config.replacements
    if not config.replacements <= n <= there - config.replacements:
        raise InputError(
            f"config.replacements={config.replacements} needs at least that many training "
            f"examples, and that many others. Of the {there:,} examples of {config.data.name}, "
            f"{n:,} are for training. Choose fewer replacements or another config.data.num_train."
        )
    return n


def _summary(config: ConfigDict, log: Log) -> Line:
    curve = [_after(log, epoch) for epoch in range(config.max_epochs + 1)]
    last, control = (log.lines(replacement=r, epoch=config.max_epochs)[0] for r in (0, None))
    network = {field: value for field, value in last.items() if trials.is_network_field(field)}
    status = "diverged" if curve[-1]["max_change"] is None else "complete"
    repeat = {f"repeat_{field}": control[field] for field in ("max_change", "mean_change")}
    return {
        "status": status,
        "replacements": config.replacements,
        **curve[-1],
        **repeat,
        **network,
        "curve": curve,
    }


def _after(log: Log, epoch: int) -> Line:
    """The changes after an epoch, over all replacements, and the losses and accuracies on S."""
    lines = [line for line in log.lines(epoch=epoch) if line["replacement"] is not None]
    line = {"epoch": epoch, "step": lines[0]["step"]} | trials.means(lines, (*CHANGES, *TRAINED))
    for field in ("max_change", "own_change"):
        if line[field] is not None:
            line[field] = max(each[field] for each in lines)
    return line
