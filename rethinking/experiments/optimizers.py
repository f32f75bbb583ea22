"""The optimizer and the learning rate that a config describes."""

import logging
import math

import jax
import optax
from ml_collections import ConfigDict

from rethinking.errors import require
from rethinking.experiments import own_optimizer
from rethinking.training import optim
from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)


def build(
    config: ConfigDict, steps_per_epoch: float | int
) -> tuple[optax.Schedule | None, optax.GradientTransformation]:
    """The learning rate of each step, and the optimizer that has it.

    The learning rate is None if an optimizer of the user's own does not take it. Raises InputError
    for a schedule that cannot act, an optimizer that cannot be made, and for settings that it does
    not use.
    """
    check_schedule(config, steps_per_epoch)
    rate = learning_rate(config, steps_per_epoch)
    if is_own(config):
        own_rate, own = own_optimizer.make(config, rate)
        return own_rate, optim.late(own, config.workers)
    if config.optimizer == "adamw":
        return rate, optim.adamw(rate, config.weight_decay, config.workers)
    make = {"sgd": optim.sgd, "rmsprop": optim.rmsprop}[config.optimizer]
    return rate, make(rate, config.momentum, config.weight_decay, config.workers)


def is_own(config: ConfigDict) -> bool:
    """Whether the optimizer is the user's own, and not one of this project."""
    return ":" in config.optimizer


def check(optimizer: optax.GradientTransformation, state: TrainState) -> None:
    """Raises InputError if the user's own optimizer cannot change such a state.

    Only shapes are computed. The gradients have the form of the parameters.
    """
    jax.eval_shape(optimizer.update, state.params, state.opt_state, state.params)


def check_schedule(config: ConfigDict, steps_per_epoch: float | int) -> None:
    """Raises InputError for settings of the schedule that cannot act in steps of this size."""
    num_steps = _num_steps(config, steps_per_epoch)
    if config.schedule == "staircase":
        _check_staircase(config, steps_per_epoch)
    elif config.schedule == "cosine":
        require(
            _warmup_steps(config, steps_per_epoch) < num_steps,
            f"config.warmup_epochs={config.warmup_epochs} is all of the {num_steps} steps of "
            f"config.max_epochs={config.max_epochs}, so the cosine of config.schedule=cosine "
            "never begins. Choose a shorter warmup or more epochs.",
        )
    require(
        config.workers <= num_steps,
        f"config.workers={config.workers}: gradients arrive {config.workers - 1} steps late, but "
        f"the run has {num_steps} steps, so the network is never trained. Choose fewer workers or "
        "a larger config.max_epochs.",
    )


def _check_staircase(config: ConfigDict, steps_per_epoch: float | int) -> None:
    require(
        config.decay_per_epoch == 1 or round(steps_per_epoch * config.epochs_per_decay) >= 1,
        f"config.epochs_per_decay={config.epochs_per_decay} is less than one step: "
        f"an epoch has {steps_per_epoch:g} steps. Choose a larger number.",
    )
    if config.decay_per_epoch != 1 and config.epochs_per_decay >= config.max_epochs:
        after = config.epochs_per_decay
        _LOG.info(
            "The learning rate never decays, because its first decay is due after %g epochs.", after
        )


def _num_steps(config: ConfigDict, steps_per_epoch: float | int) -> int:
    return math.ceil(steps_per_epoch * config.max_epochs)


def _warmup_steps(config: ConfigDict, steps_per_epoch: float | int) -> int:
    return round(steps_per_epoch * config.warmup_epochs)


def learning_rate(config: ConfigDict, steps_per_epoch: float | int) -> optax.Schedule:
    """A function step -> learning rate, as `config` describes it.

    Raises InputError for more steps than can be counted.
    """
    require(
        steps_per_epoch * config.warmup_epochs < 2**31,
        f"config.warmup_epochs={config.warmup_epochs} has more than 2**31 steps. Choose fewer.",
    )
    rate = config.learning_rate
    if config.reference_batch_size:
        rate = optim.scaled(rate, config.batch_size, config.reference_batch_size)
    if config.schedule == "cosine":
        num_steps = _num_steps(config, steps_per_epoch)
        return optim.cosine(rate, num_steps, _warmup_steps(config, steps_per_epoch))
    decay = 1.0 if config.schedule == "constant" else config.decay_per_epoch
    return optim.schedule(
        rate, decay, steps_per_epoch, config.epochs_per_decay, config.warmup_epochs
    )
