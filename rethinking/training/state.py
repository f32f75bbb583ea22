"""The state that training changes, and its start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from rethinking.models.adapters import Model


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
    model: Model,
    optimizer: optax.GradientTransformation,
    example: jax.ShapeDtypeStruct,
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function seed -> the state before the first step.

    `example` is the form of one example, without the batch. With `averager`, an
    `optim.moving_average`, the state also holds a moving average.
    """

    def init(seed):
        examples = jnp.zeros((1, *example.shape), example.dtype)
        model_state = dict(model.init(jax.random.key(seed), examples))
        params = model_state.pop("params", {})
        average = averager.init(variables(params, model_state)) if averager else ()
        return TrainState(
            jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params), average
        )

    return jax.jit(init)


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their names, such as "params/Dense_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Form(NamedTuple):
    """The shape and the dtype of an array. As text it is such as "float32[2,3]"."""

    shape: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def forms(tree: Any) -> dict[str, Form]:
    """The form of each array of a tree, by the names of `named`. Arrays may be Python numbers."""
    found = {}
    for name, leaf in named(tree).items():
        array = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
        found[name] = Form(array.shape, array.dtype)
    return found
