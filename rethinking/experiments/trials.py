"""Many trainings of one network on different sets, and the log of what each one measured."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Real
from ml_collections import ConfigDict

from rethinking import distributed, runs, sharding
from rethinking.experiments import data_set, resident
from rethinking.runs import json_files
from rethinking.training.state import TrainState

Line = dict[str, Any]


_LOG = logging.getLogger(__name__)
# The fields that every line of a kind has, by the field that only this kind has.
_NEEDED = {
    "draw": ("num_train", "epoch", "correlation", "loss"),
    "closed_form": ("num_train", "dimension", "linear_span", "linear_ball"),
    "replacement": (
        *("epoch", "step", "max_change", "mean_change", "own_change", "changed_predictions"),
        *("train_loss", "test_loss", "train_accuracy", "test_accuracy"),
    ),
}
_WHOLE = ("num_train", "draw", "replacement", "epoch", "step")


class Log:
    """The measurements of a run, in metrics.jsonl, and its time, including earlier sessions.

    Each line carries a digest of itself. A damaged line is dropped, with a warning, so that the run
    measures it again.
    """

    def __init__(self, run_directory: runs.RunDirectory, deadline: float = math.inf):
        self._run_directory, self._deadline = run_directory, deadline
        there = run_directory.read_all()
        intact = _intact(there)
        if len(intact) < len(there):
            _LOG.warning(
                "%s/metrics.jsonl is damaged: %d of its %d lines are dropped and measured again.",
                run_directory.path,
                len(there) - len(intact),
                len(there),
            )
        run_directory.keep(sorted(intact, key=_order))
        self._start = time.monotonic() - max((line["seconds"] for line in intact), default=0.0)

    def seconds(self) -> float:
        """The seconds spent on the run so far."""
        return time.monotonic() - self._start

    def late(self) -> bool:
        """Whether to stop, because of the deadline or SIGTERM; the same on all processes."""
        return distributed.must_stop(self._deadline)

    def append(self, line: Line) -> None:
        """Writes one measurement. A number that is not finite becomes None."""
        before = self._run_directory.metrics[-1:]
        self._run_directory.append(json_files.seal(line | {"seconds": self.seconds()}))
        if before and _order(line) < _order(before[0]):
            self._run_directory.keep(sorted(self._run_directory.metrics, key=_order))

    def lines(self, **fields: Any) -> list[Line]:
        """The measurements whose `fields` have these values."""
        return [line for line in self._run_directory.metrics if fields.items() <= line.items()]


def _intact(lines: Iterable[Any]) -> list[Line]:
    """The undamaged lines, each measurement once. A line that is None could not be read.

    Lines from before digests are the first ones. They are judged by their fields.
    """
    found: dict[tuple, Line] = {}
    has_digests = False
    for line in lines:
        if not isinstance(line, dict) or (has_digests and "sha256" not in line):
            continue
        if _has_all_fields(line) and json_files.is_intact(line):
            has_digests = has_digests or "sha256" in line
            found.setdefault(_subject(line), line)
    return list(found.values())


def _has_all_fields(line: Line) -> bool:
    """Whether a line has the fields of its kind, and a number or null in each."""
    kind = next((kind for kind in _NEEDED if kind in line), None)
    if kind is None or any(name not in line for name in _NEEDED[kind]):
        return False
    for name, value in line.items():
        if name in _WHOLE:
            is_good = type(value) is int or (name == "replacement" and value is None)
        elif name == "closed_form":
            is_good = value is True
        else:
            is_good = name == "sha256" or value is None or json_files.is_number(value)
        if not is_good:
            return False
    return json_files.is_number(line.get("seconds"))


def _subject(line: Line) -> tuple:
    """What a line measures. Each measurement has one line."""
    if "replacement" in line:
        return line["replacement"], line["epoch"]
    return line["num_train"], line.get("draw"), "closed_form" in line


def _order(line: Line) -> tuple[int, ...]:
    """The place of a line in a run that nothing has damaged or interrupted."""
    if "replacement" in line:  # null, the control, comes first
        replacement = -1 if line["replacement"] is None else line["replacement"]
        return replacement, line["epoch"]
    return int("closed_form" in line), line["num_train"], line.get("draw", 0)


class Repetition:
    """Trains a network on sets of one size, always from the same start and in the same order.

    The constructor raises InputError for a network, data or devices that cannot work.
    """

    def __init__(self, config: ConfigDict, num_train: int, num_classes: int):
        info = data_set.describe(config)
        self.programs = resident.build(
            config, dataclasses.replace(info, num_classes=num_classes), num_train
        )
        self._seed, self._max_epochs = config.seed, config.max_epochs

    def states(
        self,
        points: Real[Array, " n *example"],
        labels: Int[Array, " n"],
        indices: Int[np.ndarray, " n"],
    ) -> Iterator[tuple[int, TrainState]]:
        """Yields (0, state before training), (1, state after one epoch), and so on.

        A state is valid until the next one is asked for. `resident.Programs.place` gives points and
        labels. The augmentation depends on `indices`.
        """
        programs = self.programs
        state = jax.tree.map(jnp.copy, programs.initial)
        indices = sharding.replicate(jnp.asarray(indices, jnp.uint32), programs.mesh)
        yield 0, state
        for epoch in range(self._max_epochs):
            for leg in programs.train(state, (points, labels), indices, self._seed, epoch):
                state = leg.state
            yield epoch + 1, state


def is_network_field(field: str) -> bool:
    """Whether `training.margins.norms_and_margins` returns a field of this name."""
    return field.startswith(("weight_", "spectral_", "margin_"))


def means(lines: Iterable[Line], fields: Iterable[str]) -> Line:
    """The mean of each of `fields` over the lines; None if a line has no number there."""
    found: Line = {}
    for field in fields:
        values = [line.get(field) for line in lines]
        found[field] = None if None in values else float(np.mean(values))
    return found
