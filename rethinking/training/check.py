"""Checks that a network can be trained, before it is. Only shapes and dtypes are computed."""

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from rethinking import failures
from rethinking.errors import InputError, require
from rethinking.sharding import DataParallel
from rethinking.training.state import TrainState, made_variables, sown_collections

_LOG = logging.getLogger(__name__)


def check_model(
    model: nn.Module,
    example: jax.ShapeDtypeStruct,
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
) -> None:
    """Raises InputError unless the network returns `num_classes` logits for an example.

    It must do so in training and in evaluation. In training it may return a pair of logits. Unless
    `dtype` is float32, the network must compute something in it.
    """
    name = type(model).__name__
    _check_call(model)
    with explained(model, example):
        found = _apply(model, example)
    _check_logits(name, found.logits, num_classes)
    is_pair = type(found.outputs) is tuple and len(found.outputs) == 2
    for each in found.outputs if is_pair else (found.outputs,):
        _check_logits(name, each, num_classes, " in training")
    dtype = jnp.dtype(dtype)
    short = {"bfloat16": "bf16"}.get(dtype.name, dtype.name)
    require(
        dtype == jnp.float32 or f"{short}[" in str(found.program),
        f"config.dtype={dtype.name} has no effect: the network {name} computes nothing in it. "
        "Pass the network's field dtype on to its layers, or set config.dtype=float32.",
    )
    require(
        found.uses_axis,
        f"config.model.sync_batch_norm=True has no effect: the network {name} does not use its "
        "field bn_axis_name. Pass it to its batch norm as axis_name, or set "
        "config.model.sync_batch_norm=False.",
    )
    if found.sown:
        _LOG.info(
            "The network %s sows values (%s). They are not kept, and they are not part of the "
            "loss.",
            name,
            ", ".join(found.sown),
        )


class _Applied(NamedTuple):
    """A network applied to two examples."""

    program: Any  # the jaxpr of evaluation
    logits: Any  # in evaluation
    outputs: Any  # in training
    sown: list[str]  # the collections of sown values
    uses_axis: bool  # False if it has a bn_axis_name that it does not use


def _apply(model: nn.Module, example: jax.ShapeDtypeStruct) -> _Applied:
    examples = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    # Batch norm over an axis of devices can only be applied on these devices.
    alone = model
    if getattr(model, "bn_axis_name", None) is not None:
        alone = model.clone(bn_axis_name=None)
    made = jax.eval_shape(lambda *args: made_variables(model, *args), key, examples)
    sown = sown_collections(model, made, examples)
    for collection in sown:
        del made[collection]

    def evaluate(variables, examples):
        return model.apply(variables, examples, train=False)

    def train(model, variables, examples, key):
        mutable = [collection for collection in variables if collection != "params"]
        streams = {"dropout": key}
        return model.apply(variables, examples, train=True, mutable=mutable, rngs=streams)[0]

    program, logits = jax.make_jaxpr(evaluate, return_shape=True)(made, examples)
    outputs = jax.eval_shape(functools.partial(train, alone), made, examples, key)
    uses_axis = True
    if alone is not model:
        # Outside of any axis, a network that uses one raises an error.
        with contextlib.suppress(Exception):
            jax.eval_shape(functools.partial(train, model), made, examples, key)
            uses_axis = False
    return _Applied(program, logits, outputs, sown, uses_axis)


def check_training(
    model: nn.Module,
    initialize: Callable,
    train_step: Callable,
    devices: DataParallel,
    example: jax.ShapeDtypeStruct,
) -> TrainState:
    """Shapes and dtypes of the state of training. Raises InputError unless a step keeps them.

    `initialize` is that of `state.initializer` and `train_step` that of `steps.make_train_step`.
    """
    name = type(model).__name__
    with explained(model, example):
        before = jax.eval_shape(initialize, jnp.uint32(0))
    _check_dtypes(name, before)
    if type(model).__module__.startswith("rethinking."):
        return before  # Tests train the networks of this project. Tracing Inception V3 takes long.
    # Two examples for each device: gradients of convolutions take long to trace for large batches.
    examples = jax.ShapeDtypeStruct((2 * devices.size, *example.shape), example.dtype)
    labels = jax.ShapeDtypeStruct((2 * devices.size,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = devices.compile(train_step, split_argnums=(1, 2))
    with explained(model, example):
        after, _ = jax.eval_shape(step, before, examples, labels, key)
    old, new = _leaves(before), _leaves(after)
    for path in old | new:
        one, other = old.get(path, "nothing"), new.get(path, "nothing")
        require(
            one == other,
            f"the network {name} cannot be trained, because a step on {devices.size} "
            f"device{'s' if devices.size > 1 else ''} changes the form of its state. {path} is "
            f"{one} before the step and {other} after it. {_remedy(one, other, devices)}",
        )
    return before


@contextlib.contextmanager
def explained(model: nn.Module, example: jax.ShapeDtypeStruct) -> Iterator[None]:
    """Turns an error in the network's own code into InputError, with file and line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # The network may be the user's own and raise anything.
        name = type(model).__name__
        remedy = f"Correct the network {name}, or config.model.options."
        if isinstance(error, flax.errors.InvalidRngError):
            remedy += ' Use self.make_rng("dropout"): training gives no other random numbers.'
        raise InputError(
            f"{failures.placed_summary(error)} {remedy} It was tried on {in_words(example)}."
        ) from error


def in_words(example: jax.ShapeDtypeStruct) -> str:
    """What examples of this form are, such as "images of 28 x 28 x 1 (...)"."""
    if len(example.shape) > 1:
        size = " x ".join(map(str, example.shape))
        return f"images of {size} (height x width x channels)"
    if jnp.issubdtype(example.dtype, jnp.integer):
        return f"sequences of {example.shape[0]} tokens"
    return f"vectors of {example.shape[0]} features"


def _check_call(model: nn.Module) -> None:
    """Raises InputError unless the network can be called as model(x, train=True)."""
    parameters = inspect.signature(type(model).__call__).parameters if callable(model) else {}
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    require(
        "train" in parameters or takes_all,
        f"the network {type(model).__name__} does not take the argument `train`. Define "
        "def __call__(self, x, train). In training, train is True.",
    )


def _check_logits(name: str, logits: Any, num_classes: int, when: str = "") -> None:
    """Raises InputError unless these are the logits of two examples."""
    shape = getattr(logits, "shape", None)
    found = type(logits).__name__ if shape is None else shape
    require(
        shape == (2, num_classes),
        f"the network {name} returns {found} for 2 examples{when}, but logits (2, {num_classes}) "
        "are needed. Give the network a field num_classes, which is then set to the number of "
        "classes.",
    )
    require(
        jnp.issubdtype(logits.dtype, jnp.floating),
        f"the network {name} returns logits of dtype {logits.dtype}{when}, which have no gradient. "
        "Return floating-point logits.",
    )


def _check_dtypes(name: str, state: TrainState) -> None:
    """Raises InputError unless parameters are real numbers, and the rest of the state numbers."""
    params = _leaves({"params": state.params})
    require(bool(params), f"the network {name} has no parameters, so it cannot be trained.")
    for path, leaf in params.items():
        require(
            jnp.issubdtype(leaf.dtype, jnp.floating),
            f"the network {name} cannot be trained: its parameter {path} is {leaf}. Parameters "
            "must be real floating-point numbers. Make two of a complex one, and keep whole "
            "numbers in another collection.",
        )
        require(
            all(leaf.shape),
            f"the network {name} cannot be trained: its parameter {path} is {leaf}, which is "
            "empty. Choose larger sizes in config.model.options.",
        )
    for path, leaf in _leaves(state.model_state).items():
        require(
            jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.bool_,
            f"the network {name} cannot be trained: its state {path} is {leaf}, and a checkpoint "
            "holds numbers alone. Keep keys as jax.random.key_data(key).",
        )


class _Form(NamedTuple):
    """The shape and the dtype of an array."""

    shape: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def _leaves(tree: Any) -> dict[str, _Form]:
    """The form of each array of a tree, by a path such as "batch_stats/BatchNorm_0/mean"."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaves[name.removeprefix("model_state/")] = _Form(leaf.shape, leaf.dtype)
    return leaves


def _remedy(before: _Form | str, after: _Form | str, devices: DataParallel) -> str:
    """What to do about a part of the state that a step changes from `before` to `after`."""
    if isinstance(before, str) or isinstance(after, str):
        return "Make every variable at the start, and sow nothing into its collection."
    if before.shape != after.shape:
        return "Its shape must not depend on the batch. Sow what need not be kept."
    if devices.size > 1 and not jnp.issubdtype(before.dtype, jnp.inexact):
        return (
            "The state is averaged over the devices, so it must be float32 there. Or set "
            "config.num_devices=1."
        )
    return "Give it the dtype that it has after the step."
