"""`Trainer`: a network with its data, as the training loop sees it, resident or streamed."""

import abc
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jaxtyping import Int64
from ml_collections import ConfigDict

from rethinking import provenance
from rethinking.data import splits
from rethinking.experiments.network import Network
from rethinking.training.state import TrainState, named

_LOG = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run must stop in the middle of an evaluation."""


class Leg(NamedTuple):
    """The result of a leg, which is a part of training."""

    state: TrainState  # its buffers are reused by the next leg
    loss: jax.Array  # mean over the leg's steps
    waited: float | None = None  # seconds that the devices waited for images; None: they hold all


class Trainer(abc.ABC):
    """Trains and evaluates one network on one data set.

    Training advances in legs. A leg is an epoch where that is one program, else a step. No leg goes
    beyond the end of an epoch.
    """

    # The splits that `evaluate_split` can take. Each subclass sets these three, and `eval_split`.
    train: Any
    train_sample: Any  # the training examples that are evaluated before the end
    test: Any
    eval_split: str  # what `test` is: the name of a split on disk, or `description.HELD_OUT`
    # A function (state, *arguments of `replay`) -> (state, loss) for use within `devices.compile`,
    # and the arguments that are split over the devices.
    single_step: Callable
    split_argnums: tuple[int, ...] = ()

    def __init__(self, config: ConfigDict, network: Network, initial: TrainState):
        self.config = config
        self.network = network
        self.initial = initial  # the state before the first step
        params = named(initial.params)
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        _LOG.info("%s on %s:\n%s", config.model.name, provenance.device_name(), table)

    @property
    def num_params(self) -> int:
        """The number of trained parameters."""
        return sum(param.size for param in jax.tree.leaves(self.initial.params))

    @property
    def batch_norm_examples(self) -> int | None:
        """The number of examples over which batch norm averages; None if there is no batch norm."""
        if "batch_stats" not in self.initial.model_state:
            return None
        is_divided = not self.config.model.sync_batch_norm
        return self.config.batch_size // (self.network.devices.size if is_divided else 1)

    def learning_rate(self, step: int) -> float | None:
        """The learning rate of a step; None if an optimizer of the user's own decides it."""
        rate = self.network.learning_rate
        return None if rate is None else float(rate(step))

    def evaluate(
        self, state: TrainState, whole: bool, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Loss and accuracy on both splits, as {"train_loss": ..., "test_loss": ..., ...}.

        The training examples are all of them if `whole`, else `train_sample`. See `evaluate_split`
        for `stop`, which may raise Interrupted.
        """
        splits = {"train": self.train if whole else self.train_sample, "test": self.test}
        fields = {}
        for name, split in splits.items():
            for field, value in self.evaluate_split(state, split, stop).items():
                fields[f"{name}_{field}"] = value
        return fields

    @abc.abstractmethod
    def last_step(self, epoch: int) -> int:
        """The number of steps at the end of `epoch` epochs."""

    @abc.abstractmethod
    def leg_steps(self, step: int) -> int:
        """The number of steps of the leg that begins after `step` steps."""

    @abc.abstractmethod
    def legs(self, state: TrainState, step: int) -> Iterator[Leg]:
        """Trains from `state` on, where `step` steps are done; yields each leg, without end."""

    @abc.abstractmethod
    def replay(self, step: int) -> Iterator[tuple]:
        """The arguments of `single_step` for each step from `step` on, at least for a leg."""

    @abc.abstractmethod
    def rehearse(self, state: TrainState, step: int, num_steps: int) -> None:
        """Trains a copy of `state` for `num_steps` steps, or fewer if the epoch has fewer."""

    @abc.abstractmethod
    def evaluate_split(
        self, state: TrainState, split: Any, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Loss and accuracy on a split.

        A long evaluation calls `stop` with the numbers 0, 1, ... on its way. It raises Interrupted
        when the answer is true.
        """

    @abc.abstractmethod
    def result_fields(self, state: TrainState) -> dict[str, Any]:
        """Further fields of result.json, about the trained network."""


def copied(state: TrainState) -> TrainState:
    """A copy of `state`, which stays when a leg reuses the buffers of `state`."""
    return jax.tree.map(jnp.copy, state)


def choose_sample(config: ConfigDict, num_train: int) -> Int64[np.ndarray, " n"] | None:
    """Positions of the training examples to evaluate before the end; None means all."""
    if not 0 < config.eval.num_train < num_train:
        return None
    return splits.subset(num_train, config.eval.num_train, config.seed)
