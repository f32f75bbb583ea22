"""What training changes, and how it starts."""

from typing import Any

import flax
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rethinking.config import ConfigError


@flax.struct.dataclass
class TrainState:
    """Everything a training step reads and writes; a checkpoint holds it and nothing else."""

    step: Any  # int32 scalar, steps taken
    params: Any
    model_state: Any  # the model's other collections, such as batch_stats; {} if it has none
    opt_state: Any


def create(model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...], seed: int):
    """The state before the first step, for images of `image_shape` [height, width, channels].

    Raises ConfigError if the network cannot take such images.
    """

    def init(seed):
        variables = model.init(jax.random.key(seed), jnp.zeros((1, *image_shape), jnp.float32), train=False)
        params = variables.pop("params")
        return TrainState(jnp.zeros((), jnp.int32), params, dict(variables), optimizer.init(params))

    try:
        jax.eval_shape(init, jnp.uint32(seed))
    except (TypeError, ValueError, ZeroDivisionError, flax.errors.FlaxError) as error:
        raise ConfigError(f"config.model.name={type(model).__name__} cannot take images of "
                          f"{' x '.join(map(str, image_shape))} (height x width x channels): {error}") from error
    return jax.jit(init)(jnp.uint32(seed))
