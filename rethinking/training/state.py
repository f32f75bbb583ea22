"""What training changes, and how it starts."""

from collections.abc import Callable
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
    average: Any = ()  # optim.AverageState of `variables`, where their average is what is evaluated; else ()

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables with which the model is evaluated: as they are, or their moving average."""
        return self.average.average if self.average else variables(self.params, self.model_state)


def variables(params: Any, model_state: Any) -> dict[str, Any]:
    """What the model's `apply` takes."""
    return {"params": params, **model_state}


def initializer(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function seed -> the state before the first step, for images of `image_shape` [height, width, channels].

    `averager` is `optim.moving_average`, for a state that holds one. Raises ConfigError if the network cannot take such
    images.
    """

    def init(seed):
        model_state = model.init(jax.random.key(seed), jnp.zeros((1, *image_shape), jnp.float32), train=False)
        params = model_state.pop("params")
        average = averager.init(variables(params, model_state)) if averager else ()
        return TrainState(jnp.zeros((), jnp.int32), params, dict(model_state), optimizer.init(params), average)

    try:
        jax.eval_shape(init, jnp.uint32(0))
    except (TypeError, ValueError, ZeroDivisionError, flax.errors.FlaxError) as error:
        raise ConfigError(f"config.model.name={type(model).__name__} cannot take images of "
                          f"{' x '.join(map(str, image_shape))} (height x width x channels): {error}") from error
    return jax.jit(init)
