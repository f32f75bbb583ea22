"""The state that training changes, and its start."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key


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
    example: jax.ShapeDtypeStruct,
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function seed -> the state before the first step.

    `example` is the form of one example, without the batch. With `averager`, an
    `optim.moving_average`, the state also holds a moving average. It holds no `sown_collections`.
    """

    def init(seed):
        examples = jnp.zeros((1, *example.shape), example.dtype)
        model_state = made_variables(model, jax.random.key(seed), examples)
        for name in sown_collections(model, model_state, examples):
            del model_state[name]
        params = model_state.pop("params", {})
        average = averager.init(variables(params, model_state)) if averager else ()
        return TrainState(
            jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params), average
        )

    return jax.jit(init)


def made_variables(model: nn.Module, key: Key[Array, ""], examples: jax.Array) -> dict[str, Any]:
    """All variables that the model makes for such examples, without the boxes of Flax's metadata.

    A box holds an array with names for its axes: see `flax.linen.with_partitioning`.
    """
    return dict(nn.meta.unbox(model.init(key, examples, train=False)))


def sown_collections(
    model: nn.Module, made: Mapping[str, Any], examples: jax.Array | jax.ShapeDtypeStruct
) -> list[str]:
    """The collections of `made` that hold nothing but sown values.

    `flax.linen.Module.sow` adds a value to a tuple each time the model is applied. Such collections
    would grow without end, so they are not part of the state. Only shapes are computed.
    """
    names = []
    for name, collection in made.items():
        if name != "params" and all(isinstance(v, tuple) for v in _values(collection).values()):
            names.append(name)
    if not names:
        return []

    def apply(variables, examples):
        return model.apply(variables, examples, train=False, mutable=names)[1]

    after = nn.meta.unbox(jax.eval_shape(apply, made, examples))
    return [name for name in names if _has_grown(made[name], after.get(name, {}))]


def _values(collection: Any) -> dict[str, Any]:
    """The variables of a collection by their path. A sown one is a tuple of values."""
    leaves = jax.tree_util.tree_leaves_with_path(
        collection, is_leaf=lambda value: isinstance(value, tuple)
    )
    return {jax.tree_util.keystr(path): value for path, value in leaves}


def _has_grown(before: Any, after: Any) -> bool:
    """Whether every tuple of the collection has become longer."""
    old, new = _values(before), _values(after)
    return old.keys() == new.keys() and all(len(new[path]) > len(old[path]) for path in old)
