"""What training changes, and how it starts."""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rethinking.errors import InputError


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

    `averager` is `optim.moving_average`, for a state that holds one.
    """

    def init(seed):
        model_state = model.init(
            jax.random.key(seed), jnp.zeros((1, *image_shape), jnp.float32), train=False
        )
        params = model_state.pop("params")
        average = averager.init(variables(params, model_state)) if averager else ()
        return TrainState(
            jnp.zeros((), jnp.int32), params, dict(model_state), optimizer.init(params), average
        )

    return jax.jit(init)


def check_model(model: nn.Module, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Raises InputError unless the network makes `num_classes` logits of an image, in training and in evaluation."""

    def outputs(images):
        keys = jax.random.key(0)
        made = model.init(keys, images, train=False)
        evaluated = model.apply(made, images, train=False)
        # An axis to average statistics over exists on devices alone.
        if getattr(model, "bn_axis_name", None) is None:
            model.apply(
                made,
                images,
                train=True,
                mutable=[name for name in made if name != "params"],
                rngs={"dropout": keys},
            )
        return made["params"], evaluated

    name = f"config.model.name={type(model).__name__}"
    try:
        _, logits = jax.eval_shape(outputs, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))
    except InputError:
        raise
    except Exception as error:  # whatever a network of the user's own raises
        raise InputError(
            f"{name} cannot take images of {' x '.join(map(str, image_shape))} (height x width x "
            f"channels): {type(error).__name__}: {error}"
        ) from error
    if getattr(logits, "shape", None) != (2, num_classes):
        raise InputError(
            f"{name} makes {getattr(logits, 'shape', type(logits).__name__)} of 2 images where logits "
            f"(2, {num_classes}) are needed; a field num_classes is given the number of classes"
        )
