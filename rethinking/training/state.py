"""The state that training changes, its start, and the check that a network can be trained."""

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
    """All that a training step reads and writes. A checkpoint holds this and nothing else."""

    step: Any  # int32 scalar, steps done
    params: Any
    model_state: Any  # the model's other collections, such as batch_stats; {} if it has none
    opt_state: Any
    average: Any = ()  # optim.AverageState of `variables`; () if no moving average is kept

    @property
    def evaluated(self) -> dict[str, Any]:
        """The variables that evaluations use: the moving average if there is one, else the last."""
        return self.average.average if self.average else variables(self.params, self.model_state)


def variables(params: Any, model_state: Any) -> dict[str, Any]:
    """The variables in the form that the model's `apply` takes."""
    return {"params": params, **model_state}


def initializer(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function seed -> the state before the first step.

    `image_shape` is [height, width, channels]. With `averager`, an `optim.moving_average`, the
    state also holds a moving average.
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
    """Raises InputError unless the network returns `num_classes` logits for an image.

    It must do so in training and in evaluation. Shapes alone are computed.
    """
    name = type(model).__name__
    batch = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    try:
        logits = jax.eval_shape(lambda images: _logits(model, images), batch)
    except InputError:
        raise
    except Exception as error:  # The network may be the user's own and raise anything.
        raise InputError(
            f"the network {name} cannot take images of {' x '.join(map(str, image_shape))} "
            f"(height x width x channels): {type(error).__name__}: {error}"
        ) from error
    if getattr(logits, "shape", None) != (2, num_classes):
        raise InputError(
            f"the network {name} returns {getattr(logits, 'shape', type(logits).__name__)} for 2 "
            f"images, but logits (2, {num_classes}) are needed. Give the network a field "
            "num_classes, which is then set to the number of classes."
        )


def _logits(model: nn.Module, images: jax.Array) -> Any:
    """The network's outputs in evaluation mode; it is also applied in training mode."""
    key = jax.random.key(0)
    made = model.init(key, images, train=False)
    # Batch norm over an axis of devices can only be applied on these devices.
    if getattr(model, "bn_axis_name", None) is None:
        mutable = [name for name in made if name != "params"]
        model.apply(made, images, train=True, mutable=mutable, rngs={"dropout": key})
    return model.apply(made, images, train=False)
