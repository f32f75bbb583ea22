"""Uniform stability, measured: a network is trained on S, and on S with one example replaced by a fresh one.

Both trainings have the same start, the same order, and the new example in the old one's place. Losses are compared on
S, on the fresh examples, which come from the training set as well and with labels as random, and on the test set. As a
control S itself is trained on twice: what changes then is the hardware's doing, which may add in another order.

Lines of metrics.jsonl: for each replacement (null: the control) and epoch `replacement`, `epoch`, `step`;
`max_change`, `mean_change`, `own_change` of the cross entropy (`complexity.changes`); `changed_predictions`, the
fraction of examples classified otherwise; `train_loss`, `test_loss`, `train_accuracy`, `test_accuracy` after training
on S; in the last epoch its norms and margins.
"""

import functools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.experiments import resident, trials
from rethinking.experiments.trials import Line, Log, Trainer
from rethinking.theory import complexity
from rethinking.training import margins

_LOG = logging.getLogger(__name__)
CHANGES = ("max_change", "mean_change", "own_change", "changed_predictions")
TRAINED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def measure(config: ConfigDict, log: Log) -> Line | None:
    """Replaces `config.replacements` examples, one at a time; the result's fields, None if out of time.

    After the last epoch: `max_change` and `own_change` are the largest over the replacements, `mean_change` and
    `changed_predictions` means over them; losses, accuracies, norms and margins are those of training on S.
    `repeat_max_change` and `repeat_mean_change` are the control's. `curve` has a dictionary of the same for each epoch.
    Raises InputError if no training examples are left to replace others.
    """
    twins = Twins(config)
    for r in (None, *range(config.replacements)):
        if log.lines(replacement=r, epoch=config.max_epochs):
            continue
        if log.late():
            return None
        for epoch, line in enumerate(twins.compare(r)):
            if not log.lines(
                replacement=r, epoch=epoch
            ):  # it is there if the run was killed at this replacement
                log.append({"replacement": r, "epoch": epoch} | line)
        _LOG.info(
            "%s: losses change by %.3g on average, %.3g at most",
            "control" if r is None else f"replacement {r}",
            line["mean_change"],
            line["max_change"],
        )
    return _summary(config, log)


class After(NamedTuple):
    """What a training has come to after an epoch: on S, the fresh examples and the test set, in this order."""

    losses: Float[np.ndarray, " points"]
    predictions: Int[np.ndarray, " points"]
    network: Line  # norms and margins on S; none before the last epoch


class Twins:
    """Training on S, and on S with the example at `positions[r]` replaced by number r of the fresh ones."""

    def __init__(self, config: ConfigDict):
        self.num_train = _num_train(config)
        settings = config.copy_and_resolve_references()
        settings.data.num_train = self.num_train + config.replacements
        data = resident.load_data(settings)
        self.positions = np.random.default_rng(config.seed).choice(
            self.num_train, config.replacements, replace=False
        )
        self._trainer = Trainer(config, self.num_train, data.num_classes)
        self._max_epochs = config.max_epochs
        self._train, self._test = map(self._trainer.programs.place, (data.train, data.test))
        self._indices = data.train.indices[: self.num_train]
        self._labels = np.concatenate([data.train.labels, data.test.labels])

    def compare(self, r: int | None) -> Iterator[Line]:
        """Trains with replacement r (None: on S again), and yields what differs from S: before training and after each
        epoch."""
        position, fresh = (0, 0) if r is None else (int(self.positions[r]), self.num_train + r)
        replaced = np.isin(np.arange(len(self._labels)), [] if r is None else [position, fresh])
        step = self._trainer.programs.steps_per_epoch
        for epoch, (before, after) in enumerate(
            zip(self.original, self.train(position, fresh), strict=True)
        ):
            yield (
                {"step": epoch * step} | self._differences(before, after, replaced) | before.network
            )

    @functools.cached_property
    def original(self) -> list[After]:
        """Training on S."""
        return list(self.train(0, 0))

    def train(self, position: int, source: int) -> Iterator[After]:
        """Trains on S with example number `source`, of S and then the fresh ones, in the place of `position`."""
        images, labels = (
            array[: self.num_train].at[position].set(array[source]) for array in self._train
        )
        programs = self._trainer.programs
        for epoch, state in self._trainer.states(images, labels, self._indices):
            logits = np.concatenate(
                [programs.logits(state, split[0]) for split in (self._train, self._test)]
            )
            last = epoch == self._max_epochs
            n = self.num_train
            network = {}
            if last:
                network = margins.norms_and_margins(state.params, logits[:n], self._labels[:n])
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


def _num_train(config: ConfigDict) -> int:
    there = arrays.describe(config.data.name, config.data.data_dir or None).num_train
    n = config.data.num_train or there - config.replacements
    if not config.replacements <= n <= there - config.replacements:
        raise InputError(
            f"config.replacements={config.replacements} beside {n:,} training images: {config.data.name} "
            f"has {there:,}. Choose a smaller one, or another config.data.num_train."
        )
    return n


def _summary(config: ConfigDict, log: Log) -> Line:
    curve = [_after(log, epoch) for epoch in range(config.max_epochs + 1)]
    last, control = (log.lines(replacement=r, epoch=config.max_epochs)[0] for r in (0, None))
    network = {field: value for field, value in last.items() if trials.is_network_field(field)}
    status = "diverged" if curve[-1]["max_change"] is None else "complete"
    repeat = {f"repeat_{field}": control[field] for field in ("max_change", "mean_change")}
    return (
        {"status": status, "replacements": config.replacements}
        | curve[-1]
        | repeat
        | network
        | {"curve": curve}
    )


def _after(log: Log, epoch: int) -> Line:
    lines = [line for line in log.lines(epoch=epoch) if line["replacement"] is not None]
    line = {"epoch": epoch, "step": lines[0]["step"]} | trials.means(lines, (*CHANGES, *TRAINED))
    for field in ("max_change", "own_change"):
        if line[field] is not None:
            line[field] = max(each[field] for each in lines)
    return line
