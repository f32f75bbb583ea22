"""Networks written in Flax Linen."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax
import jax
from flax import linen as nn

from rethinking.errors import require
from rethinking.models.adapters.interface import Model, Variables, Words, state_of


class Linen(Model):
    """A `flax.linen.Module` that is called as `module(x, train)`."""

    words = Words(
        field="field",
        integers="keep whole numbers in another collection",
        growth="Make every variable at the start, and sow nothing into its collection.",
        shapes="Sow what need not be kept.",
        keys="Keep keys as jax.random.key_data(key).",
    )

    def __init__(self, module: nn.Module):
        super().__init__(type(module))
        self.module = module

    def init(self, key, x):
        """See `Model`. Values that the module sows are left out."""
        made = self._made(key, x)
        for name in _sown(self.module, made, x):
            del made[name]
        return made

    def apply(self, variables, x, train, key=None):
        """See `Model`. Random numbers come from the stream "dropout"."""
        state = state_of(variables)
        if not train:
            return self.module.apply(variables, x, train=False), state
        return self.module.apply(
            variables, x, train=True, mutable=list(state), rngs={"dropout": key}
        )

    def check_call(self):
        """Raises InputError unless the module can be called as module(x, train=True)."""
        call = type(self.module).__call__ if callable(self.module) else None
        parameters = inspect.signature(call).parameters if call else {}
        takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        require(
            "train" in parameters or takes_all,
            f"the network {self.name} does not take the argument `train`. Define "
            "def __call__(self, x, train). In training, train is True.",
        )

    def sown(self, x):
        """See `Model`."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return _sown(self.module, jax.eval_shape(self._made, key, x), x)

    def remedy(self, error):
        """See `Model`."""
        text = super().remedy(error)
        if isinstance(error, flax.errors.InvalidRngError):
            text += ' Use self.make_rng("dropout"): training gives no other random numbers.'
        return text

    def _made(self, key, x) -> Variables:
        """All variables that the module makes, without the boxes of Flax's metadata.

        A box holds an array with names for its axes: see `flax.linen.with_partitioning`.
        """
        return dict(nn.meta.unbox(self.module.init(key, x, train=False)))


def _sown(
    module: nn.Module, made: Mapping[str, Any], x: jax.Array | jax.ShapeDtypeStruct
) -> list[str]:
    """The collections of `made` that hold nothing but sown values.

    `flax.linen.Module.sow` adds a value to a tuple each time the module is applied. Such
    collections would grow without end, so they are not part of the state. Only shapes are computed.
    """
    names = []
    for name, collection in made.items():
        if name != "params" and all(isinstance(v, tuple) for v in _values(collection).values()):
            names.append(name)
    if not names:
        return []

    def apply(variables, x):
        return module.apply(variables, x, train=False, mutable=names)[1]

    after = nn.meta.unbox(jax.eval_shape(apply, made, x))
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
