"""What the training loop needs of a network and its data, wherever those are."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from rethinking import provenance
from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run must stop in the middle of an evaluation."""


class Leg(NamedTuple):
    """What a part of training leaves behind."""

    state: TrainState  # gone when the next leg is asked for
    loss: jax.Array  # mean over the leg's steps


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's start, and the means to go on from there.

    An epoch is a whole number of legs: one where the data are on the device, as many as it has steps where they are
    streamed.
    """

    state: TrainState
    steps_per_leg: int
    last_step: Callable[[int], int]  # e -> the steps taken when e epochs are over
    legs: Callable[
        [TrainState, int], Iterator[Leg]
    ]  # (state, steps taken) -> training from there on, without end
    # (state, whether all training images count, not config.eval.num_train of them, stop) -> {"train_loss": ..., ...}.
    # Where that takes long, it asks `stop`, with the numbers from 0 on, and raises Interrupted when told so.
    evaluate: Callable[[TrainState, bool, Callable[[int], bool]], dict[str, float]]
    learning_rate: Callable[[int], Any]  # of a step
    measure_at_end: Callable[[TrainState], dict[str, Any]]  # -> further fields of result.json

    @property
    def streamed(self) -> bool:
        """Whether training can be left in the middle of an epoch."""
        return self.steps_per_leg == 1

    @property
    def num_params(self) -> int:
        """The number of trained parameters."""
        return sum(param.size for param in jax.tree.leaves(self.state.params))


def log_parameters(config: ConfigDict, params: Any) -> None:
    """Shows the network's parameters."""
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    _LOG.info("%s on %s:\n%s", config.model.name, provenance.device_name(), table)
