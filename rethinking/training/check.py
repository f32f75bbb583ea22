"""Checks that a network can be trained, before it is. Only shapes and dtypes are computed."""

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from rethinking import failures
from rethinking.errors import InputError, require
from rethinking.models.adapters import Model
from rethinking.sharding import DataParallel
from rethinking.training.state import Form, TrainState, forms

_LOG = logging.getLogger(__name__)


def check_model(
    model: Model,
    example: jax.ShapeDtypeStruct,
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
    alone: Model | None = None,
) -> None:
    """Raises InputError unless the network returns `num_classes` logits for an example.

    It must do so in training and in evaluation. In training it may return a pair of logits. Unless
    `dtype` is float32, the network must compute something in it. If batch norm averages over an
    axis of devices, `alone` is the same network without that axis.
    """
    name, field = model.name, model.words.field
    model.check_call()
    with explained(model, example):
        found = _apply(model, alone or model, example)
    _check_logits(model, found.logits, num_classes)
    is_pair = type(found.outputs) is tuple and len(found.outputs) == 2
    for each in found.outputs if is_pair else (found.outputs,):
        _check_logits(model, each, num_classes, " in training")
    require(
        found.is_pure,
        f"the network {name} computes something else in each call, but a compiled step would "
        "repeat the first call. Draw random numbers by jax.random, and keep what changes "
        "among the variables.",
    )
    dtype = jnp.dtype(dtype)
    short = {"bfloat16": "bf16"}.get(dtype.name, dtype.name)
    require(
        dtype == jnp.float32 or f"{short}[" in str(found.program),
        f"config.dtype={dtype.name} has no effect: the network {name} computes nothing in it. "
        f"Pass the network's {field} dtype on to its layers, or set config.dtype=float32.",
    )
    require(
        found.uses_axis,
        f"config.model.sync_batch_norm=True has no effect: the network {name} does not use its "
        f"{field} bn_axis_name. Pass it to its batch norm as axis_name, or set "
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
    is_pure: bool  # whether each trace of training gives the same program
    sown: list[str]  # the collections of sown values
    uses_axis: bool  # False if it should average over an axis of devices, and does not


def _apply(model: Model, alone: Model, example: jax.ShapeDtypeStruct) -> _Applied:
    examples = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.eval_shape(model.init, key, examples)

    def evaluate(variables, examples):
        return model.apply(variables, examples, train=False)[0]

    def train(model, variables, examples, key):
        return model.apply(variables, examples, train=True, key=key)[0]

    program, logits = jax.make_jaxpr(evaluate, return_shape=True)(made, examples)
    # Batch norm over an axis of devices can only be applied on these devices.
    outputs = jax.eval_shape(functools.partial(train, alone), made, examples, key)
    is_pure = True
    if not model.is_ours:
        # JAX remembers the program of a function, so each trace is one of a new partial function.
        one, other = (
            _text(jax.make_jaxpr(functools.partial(train, alone))(made, examples, key))
            for _ in range(2)
        )
        is_pure = one == other
    uses_axis = True
    if alone is not model:
        # Outside of any axis, a network that uses one raises an error.
        with contextlib.suppress(Exception):
            jax.eval_shape(functools.partial(train, model), made, examples, key)
            uses_axis = False
    sown = [] if model.is_ours else alone.sown(examples)
    return _Applied(program, logits, outputs, is_pure, sown, uses_axis)


def _text(program: Any) -> str:
    """A program with the values of its constants, without addresses of the computer's memory."""
    is_key = [jax.dtypes.issubdtype(each.dtype, jax.dtypes.prng_key) for each in program.consts]
    values = [
        np.asarray(jax.random.key_data(each) if key else each).tobytes()
        for each, key in zip(program.consts, is_key, strict=True)
    ]
    return re.sub(r"0x[0-9a-f]+", "", f"{program} {values}")


def check_training(
    model: Model,
    initialize: Callable,
    train_step: Callable,
    devices: DataParallel,
    example: jax.ShapeDtypeStruct,
) -> TrainState:
    """Shapes and dtypes of the state of training. Raises InputError unless a step keeps them.

    `initialize` is that of `state.initializer` and `train_step` that of `steps.make_train_step`.
    """
    name = model.name
    with explained(model, example):
        before = jax.eval_shape(initialize, jnp.uint32(0))
    _check_dtypes(model, before)
    if model.is_ours:
        return before  # Tests train the networks of this project. Tracing Inception V3 takes long.
    # Two examples for each device: gradients of convolutions take long to trace for large batches.
    examples = jax.ShapeDtypeStruct((2 * devices.size, *example.shape), example.dtype)
    labels = jax.ShapeDtypeStruct((2 * devices.size,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = devices.compile(train_step, split_argnums=(1, 2))
    with explained(model, example):
        after, _ = jax.eval_shape(step, before, examples, labels, key)
    old, new = _forms(before), _forms(after)
    for path in old | new:
        one, other = old.get(path, "nothing"), new.get(path, "nothing")
        require(
            one == other,
            f"the network {name} cannot be trained, because a step on {devices.size} "
            f"device{'s' if devices.size > 1 else ''} changes the form of its state. {path} is "
            f"{one} before the step and {other} after it. {_remedy(model, one, other, devices)}",
        )
    one, other = jax.tree.structure(before), jax.tree.structure(after)
    require(
        one == other,
        f"the network {name} cannot be trained, because a step changes the types of the containers "
        f"of its state, from {one} to {other}. {model.words.growth}",
    )
    return before


@contextlib.contextmanager
def explained(model: Model, example: jax.ShapeDtypeStruct) -> Iterator[None]:
    """Turns an error in the network's own code into InputError, with file and line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # The network may be the user's own and raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} {model.remedy(error)} "
            f"It was tried on {in_words(example)}."
        ) from error


def in_words(example: jax.ShapeDtypeStruct) -> str:
    """What examples of this form are, such as "images of 28 x 28 x 1 (...)"."""
    if len(example.shape) > 1:
        size = " x ".join(map(str, example.shape))
        return f"images of {size} (height x width x channels)"
    if jnp.issubdtype(example.dtype, jnp.integer):
        return f"sequences of {example.shape[0]} tokens"
    return f"vectors of {example.shape[0]} features"


def _check_logits(model: Model, logits: Any, num_classes: int, when: str = "") -> None:
    """Raises InputError unless these are the logits of two examples."""
    name = model.name
    shape = getattr(logits, "shape", None)
    found = type(logits).__name__ if shape is None else shape
    require(
        shape == (2, num_classes),
        f"the network {name} returns {found} for 2 examples{when}, but logits (2, {num_classes}) "
        f"are needed. Give the network the {model.words.field} num_classes, which is then set to "
        "the number of classes.",
    )
    require(
        jnp.issubdtype(logits.dtype, jnp.floating),
        f"the network {name} returns logits of dtype {logits.dtype}{when}, which have no gradient. "
        "Return floating-point logits.",
    )


def _check_dtypes(model: Model, state: TrainState) -> None:
    """Raises InputError unless parameters are real numbers, and the rest of the state numbers."""
    name = model.name
    params = forms({"params": state.params})
    require(bool(params), f"the network {name} has no parameters, so it cannot be trained.")
    for path, leaf in params.items():
        require(
            jnp.issubdtype(leaf.dtype, jnp.floating),
            f"the network {name} cannot be trained: its parameter {path} is {leaf}. Parameters "
            "must be real floating-point numbers. Make two of a complex one, and "
            f"{model.words.integers}.",
        )
        require(
            all(leaf.shape),
            f"the network {name} cannot be trained: its parameter {path} is {leaf}, which is "
            "empty. Choose larger sizes in config.model.options.",
        )
    for path, leaf in forms(state.model_state).items():
        require(
            jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.bool_,
            f"the network {name} cannot be trained: its state {path} is {leaf}, and a checkpoint "
            f"holds numbers alone. {model.words.keys}",
        )


def _forms(state: TrainState) -> dict[str, Form]:
    """The `forms` of a state, with the names of collections as its network has them."""
    return {path.removeprefix("model_state/"): form for path, form in forms(state).items()}


def _remedy(model: Model, before: Form | str, after: Form | str, devices: DataParallel) -> str:
    """What to do about a part of the state that a step changes from `before` to `after`."""
    if isinstance(before, str) or isinstance(after, str):
        return model.words.growth
    if before.shape != after.shape:
        return f"Its shape must not depend on the batch. {model.words.shapes}"
    if devices.size > 1 and not jnp.issubdtype(before.dtype, jnp.inexact):
        return (
            "It differs between the devices, which then average it, so it must be float32. Or set "
            "config.num_devices=1."
        )
    return "Give it the dtype that it has after the step."
