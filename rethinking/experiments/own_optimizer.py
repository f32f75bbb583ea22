"""Optimizers of the user's own: `config.optimizer=package.module:function`."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rethinking import failures, own_code
from rethinking.config import refuse_without_effect
from rethinking.errors import InputError, require
from rethinking.experiments.training_fields import FIELDS
from rethinking.training.state import forms

# The fields that decide the learning rate of each step.
_RATE = (
    "learning_rate",
    "reference_batch_size",
    "schedule",
    "decay_per_epoch",
    "epochs_per_decay",
    "warmup_epochs",
)
# The fields that have an effect only if the optimizer uses them.
_SETTINGS = (*_RATE, "momentum", "weight_decay")


def make(
    config: ConfigDict, rate: optax.Schedule
) -> tuple[optax.Schedule | None, optax.GradientTransformation]:
    """The learning rate, and the optimizer that the function `config.optimizer` makes.

    The function is called as function(config). If it has a parameter `learning_rate`, it also gets
    `rate`, a function from steps to numbers. If it has not, the learning rate is its own, and None
    stands for it here. Mistakes in the optimizer become InputErrors with file and line.

    Raises InputError if the function cannot be called so, returns something else, or does not read
    a setting that is not at its default.
    """
    name = config.optimizer
    function = own_code.load(name, "optimizer")
    recorded, read = _recorded(config)
    keywords = _keywords(name, function, rate)
    with _explained(name):
        made = function(recorded, **keywords)
    require(
        isinstance(made, optax.GradientTransformation),
        f"The optimizer {name} returns a {type(made).__name__}. Return an "
        "optax.GradientTransformation, such as optax.lion(1e-4).",
    )
    used = {*read, *(_RATE if keywords else ())}
    unused = [field for field in _SETTINGS if field not in used]
    because = f"config.optimizer={name}, which does not read it"
    refuse_without_effect(config, FIELDS, unused, because)
    return rate if keywords else None, _guarded(name, made)


def _keywords(name: str, function: Any, rate: optax.Schedule) -> dict[str, optax.Schedule]:
    """The arguments of `function` beside the config. Raises InputError if it needs others."""
    keywords = {}
    try:
        signature = inspect.signature(function)
        if "learning_rate" in signature.parameters:
            keywords["learning_rate"] = rate
        signature.bind(None, **keywords)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The optimizer {name} cannot be made: {error}. Define a function of (config) or of "
            "(config, learning_rate) that returns an optax.GradientTransformation."
        ) from error
    return keywords


def _recorded(config: ConfigDict) -> tuple[ConfigDict, set[str]]:
    """A copy of `config`, and the set of its fields and groups that were read since."""
    read = set()

    class Recorded(ConfigDict):
        def __getitem__(self, key: str) -> Any:
            read.add(key)
            return super().__getitem__(key)

    copy = Recorded(config.to_dict())
    read.clear()
    return copy, read


def _guarded(name: str, made: optax.GradientTransformation) -> optax.GradientTransformation:
    """`made`, which raises InputErrors for its mistakes. They are found while JAX traces it."""

    def init(params):
        with _explained(name):
            state = made.init(params)
        for path, form in forms(state).items():
            require(
                jnp.issubdtype(form.dtype, jnp.number) or form.dtype == jnp.bool_,
                f"The optimizer {name} cannot be used: its state {path} is {form.dtype}, and a "
                "checkpoint holds numbers alone. Keep keys as jax.random.key_data(key).",
            )
        return state

    def update(grads, state, params=None):
        with _explained(name):
            updates, after = made.update(grads, state, params)
        _require_same_form(name, "the updates", params, updates)
        _require_same_form(name, "its state", state, after)
        return updates, after

    return optax.GradientTransformation(init, update)


def _require_same_form(name: str, what: str, before: Any, after: Any) -> None:
    """Raises InputError unless two trees have the same paths, shapes and dtypes."""
    old, new = forms(before), forms(after)
    for path in old | new:
        one, other = old.get(path, "nothing"), new.get(path, "nothing")
        where = f"{what} {path}" if path else what
        require(
            one == other,
            f"The optimizer {name} cannot be used: {where} must be {one}, but a step makes it "
            f"{other}. Keep the shapes and the dtypes.",
        )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns an error in the optimizer's own code into InputError, with file and line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # The optimizer is the user's own and may raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} The optimizer {name} cannot be used. Correct it "
            "there."
        ) from error
