"""Many trainings of one network on different sets, and the log of what each one measured."""

import dataclasses
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
from rethinking.data import arrays
from rethinking.experiments import resident
from rethinking.training.state import TrainState

Line = dict[str, Any]


class Log:
    """The measurements of a run, in metrics.jsonl, and its time, including earlier sessions."""

    def __init__(self, run_directory: runs.RunDirectory, deadline: float = math.inf):
        run_directory.keep_metrics()
        self._run_directory, self._deadline = run_directory, deadline
        spent = run_directory.metrics[-1]["seconds"] if run_directory.metrics else 0.0
        self._start = time.time() - spent

    def seconds(self) -> float:
        """The seconds spent on the run so far."""
        return time.time() - self._start

    def late(self) -> bool:
        """Whether to stop, because of the deadline or SIGTERM; the same on all processes."""
        return distributed.must_stop(self._deadline)

    def append(self, line: Line) -> None:
        """Writes one measurement. A number that is not finite becomes None."""
        self._run_directory.append(line | {"seconds": self.seconds()})

    def lines(self, **fields: Any) -> list[Line]:
        """The measurements whose `fields` have these values."""
        return [line for line in self._run_directory.metrics if fields.items() <= line.items()]


class Repetition:
    """Trains a network on sets of one size, always from the same start and in the same order.

    The constructor raises InputError for a network, data or devices that cannot work.
    """

    def __init__(self, config: ConfigDict, num_train: int, num_classes: int):
        info = arrays.describe(config.data.name, config.data.data_dir or None)
        self.programs = resident.build(
            config, dataclasses.replace(info, num_classes=num_classes), num_train
        )
        self._seed, self._max_epochs = config.seed, config.max_epochs

    def states(
        self,
        images: Real[Array, "n h w c"],
        labels: Int[Array, " n"],
        indices: Int[np.ndarray, " n"],
    ) -> Iterator[tuple[int, TrainState]]:
        """Yields (0, state before training), (1, state after one epoch), and so on.

        A state is valid until the next one is asked for. `resident.Programs.place` gives images and
        labels. The augmentation depends on `indices`.
        """
        programs = self.programs
        state = jax.tree.map(jnp.copy, programs.initial)
        indices = sharding.replicate(jnp.asarray(indices, jnp.uint32), programs.mesh)
        seed = programs.scalar(self._seed)
        yield 0, state
        for epoch in range(self._max_epochs):
            state, _ = programs.train_epoch(
                state, images, labels, indices, seed, programs.scalar(epoch)
            )
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
