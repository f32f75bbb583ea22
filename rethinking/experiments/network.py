"""What a config says of the network and its training, as functions: the same wherever the data are."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rethinking import models
from rethinking.errors import InputError
from rethinking.sharding import DataParallel
from rethinking.training import optim, state, steps


class Network(NamedTuple):
    """A network, how it starts, and how a batch changes it."""

    model: nn.Module
    initialize: Callable  # seed -> state
    train_step: Callable  # see `steps.make_train_step`
    learning_rate: optax.Schedule


def check_batch_size(config: ConfigDict, num_train: int, num_devices: int) -> None:
    """Raises InputError if a batch is more than the training set, or cannot be dealt to the devices evenly."""
    if config.batch_size % num_devices:
        raise InputError(
            f"config.batch_size={config.batch_size} cannot be split evenly over {num_devices} devices. "
            f"Choose a multiple of {num_devices}, or set config.num_devices."
        )
    if config.batch_size > num_train:
        raise InputError(
            f"config.batch_size={config.batch_size} is more than the {num_train} training images"
        )


def make(
    config: ConfigDict,
    devices: DataParallel,
    image_shape: tuple[int, ...],
    num_classes: int,
    steps_per_epoch: float | int,
) -> Network:
    """The network of `config` for images of `image_shape` [height, width, channels], trained on `devices`.

    Raises InputError for a network that cannot be made or cannot take such images.
    """
    axis_name = devices.axis_name if config.model.sync_batch_norm else None
    model = models.create(
        config.model.name, num_classes, jnp.dtype(config.dtype), axis_name, **config.model.options
    )
    state.check_model(model, image_shape, num_classes)
    optimizer, learning_rate = optim.create(config, steps_per_epoch)
    averager = optim.moving_average(config.average_decay) if config.average_decay else None
    train_step = steps.make_train_step(
        model, optimizer, devices, config.batch_size, config.label_smoothing, averager
    )
    return Network(
        model, state.initializer(model, optimizer, image_shape, averager), train_step, learning_rate
    )
