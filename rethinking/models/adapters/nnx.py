"""Networks written in Flax NNX."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from rethinking.errors import require
from rethinking.models.adapters.interface import Model, Words, state_of

# Arguments that would tell a network whether it is being trained. model.train() does that.
_MODES = ("train", "training", "is_training", "deterministic", "use_running_average")
# The collection of arrays that are attributes without being an nnx.Variable.
_ARRAYS = "arrays"


class Nnx(Model):
    """A `flax.nnx.Module` class: its objects are called as `model(x)`, or `model(x, rngs=rngs)`.

    It is constructed with `rngs`. Its variables are split off by kind: nnx.Param is "params",
    nnx.BatchStat "batch_stats", and any other kind a collection of its own. Random number streams
    are not among them. They start anew in each step, from the step's key. So a step is a pure
    function, and a continued run draws what an uninterrupted one draws.
    """

    words = Words(
        field="argument",
        integers="keep whole numbers in another kind of nnx.Variable",
        growth="Make every nnx.Variable in the constructor, and sow nothing but nnx.Intermediate.",
        shapes="Sow what need not be kept.",
        keys="Keep nnx.Rngs in place of a key.",
    )

    def __init__(self, make: functools.partial):
        """`make` is the class with all arguments of its constructor but `rngs`."""
        super().__init__(make.func)
        self._make = make
        calls = [vars(base)["__call__"] for base in make.func.__mro__ if "__call__" in vars(base)]
        self._parameters: list[inspect.Parameter] = []  # those of the call, after self
        if calls:
            self._parameters = list(inspect.signature(calls[0]).parameters.values())[1:]

    def init(self, key, x):
        """See `Model`."""
        return _collections(nnx.state(self._construct(key)))

    def apply(self, variables, x, train, key=None):
        """See `Model`."""
        graphdef, made = self._parts
        key = jax.random.key(0) if key is None else key
        call_key, stream_key = jax.random.split(key)
        model = nnx.merge(graphdef, _filled(made, variables, stream_key))
        outputs = self._call(model, x, train, call_key)
        if not train:
            return outputs, state_of(variables)
        after = _collections(_without_sown(nnx.state(model), made))
        return outputs, state_of(after)

    def check_call(self):
        """Raises InputError unless model(x) is a call, or model(x, rngs=rngs)."""
        call = f"the network {self.name} is called as model(x)"
        require(bool(self._parameters), f"{call}, but it has no __call__(self, x). Define it.")
        for each in self._parameters[1:]:
            if each.name == "rngs" or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                continue
            is_mode = each.name in _MODES
            require(
                each.default is not each.empty and not (is_mode and each.default is not None),
                f"{call}, but its call has the argument `{each.name}`. "
                + (
                    "Leave it out: model.train() and model.eval() tell nnx.Dropout and "
                    "nnx.BatchNorm, which then need no such argument."
                    if is_mode
                    else "Give it a default, or make it an argument of the constructor."
                ),
            )

    def sown(self, x):
        """See `Model`."""
        _, made = self._parts
        kinds = set()

        def call(key, x):
            model = self._construct(key)
            self._call(model, x, True, key)
            state = nnx.state(model)
            kept = {path for path, _ in nnx.to_flat_state(_without_sown(state, made))}
            for path, variable in nnx.to_flat_state(state):
                if path not in kept:
                    kinds.add(_collection(variable))

        jax.eval_shape(call, jax.eval_shape(lambda: jax.random.key(0)), x)
        return sorted(kinds)

    @functools.cached_property
    def _parts(self) -> tuple[nnx.GraphDef, Mapping]:
        """The static part of the network, and the forms of its variables."""
        return jax.eval_shape(lambda: nnx.split(self._construct(jax.random.key(0))))

    def _construct(self, key) -> nnx.Module:
        # Names for the sharding of a parameter are ignored: each device has a copy of it.
        with nnx.use_eager_sharding(False):
            model = self._make(rngs=nnx.Rngs(key))
        # Flax takes arrays for data, but not the tracers that stand for them while JAX traces this.
        for _, node in nnx.iter_graph(model):
            if isinstance(node, nnx.Pytree):
                for name, value in list(vars(node).items()):
                    if isinstance(value, jax.core.Tracer):
                        setattr(node, name, nnx.data(value))
        return model

    def _call(self, model: nnx.Module, x, train: bool, key) -> Any:
        """The outputs for x. In evaluation, the call gets `rngs` only if it cannot do without."""
        if train:
            model.train()
        else:
            model.eval()
        before = _constants(model)
        takes_rngs = any(
            each.name == "rngs" and (train or each.default is each.empty)
            for each in self._parameters
        )
        outputs = model(x, rngs=nnx.Rngs(key)) if takes_rngs else model(x)
        after = _constants(model)
        changed = [name for name in after if before.get(name) != after[name]]
        require(
            not (train and changed),
            f"the network {self.name} sets {', '.join(changed)} in its call. This would be lost "
            "after each step, because training keeps nothing but variables. Make an nnx.Variable "
            "of it in the constructor, or use a local variable if no later call needs it.",
        )
        return outputs


def _constants(model: nnx.Module) -> dict[str, str]:
    """The attributes of a network and its layers that are not arrays, such as numbers, as text."""
    return {
        ".".join(map(str, path)): repr(value)
        for path, value in nnx.iter_graph(model)
        if not isinstance(value, (nnx.Variable, nnx.Pytree, jax.Array, list, dict))
        and not any(str(part).startswith("_pytree__") for part in path)
    }


def _collection(variable: Any) -> str:
    """The name of the collection that holds a variable of this kind, as in Flax Linen."""
    if not isinstance(variable, nnx.Variable):
        return _ARRAYS
    for kind, name in ((nnx.Param, "params"), (nnx.BatchStat, "batch_stats"), (nnx.Cache, "cache")):
        if isinstance(variable, kind):
            return name
    return type(variable).__name__


def _name(path: tuple) -> tuple[str, ...]:
    """The path of a variable in a collection. Orbax writes the numbers of a list as text."""
    return tuple(map(str, path))


def _collections(state: Mapping) -> dict[str, Any]:
    """The values of a state by collection, without streams of random numbers."""
    collections: dict[str, dict] = {}
    for path, variable in nnx.to_flat_state(state):
        if isinstance(variable, nnx.RngState):
            continue
        value = variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable
        collections.setdefault(_collection(variable), {})[_name(path)] = value
    return {name: traverse_util.unflatten_dict(flat) for name, flat in collections.items()}


def _filled(made: Mapping, variables: dict[str, Any], key) -> Mapping:
    """A state of the form `made` with the values of `variables`, and fresh streams from `key`."""
    flat = []
    for number, (path, variable) in enumerate(nnx.to_flat_state(made)):
        if isinstance(variable, nnx.RngKey):
            value = _keys(jax.random.fold_in(key, number), variable.shape)
        elif isinstance(variable, nnx.RngState):
            value = jnp.zeros(variable.shape, variable.dtype)
        else:
            value = variables[_collection(variable)]
            for part in _name(path):
                value = value[part]
        if isinstance(variable, nnx.Variable):
            value = variable.replace(value)
        flat.append((path, value))
    return nnx.from_flat_state(flat)


def _keys(key, shape: tuple[int, ...]):
    """A key for each stream. Layers made by nnx.vmap have several."""
    return jax.random.split(key, shape) if shape else key


def _without_sown(after: Mapping, made: Mapping) -> Mapping:
    """`after` without what the network has sown, which is not part of its state.

    That is every nnx.Intermediate, and tuples that were not there when the network was made.
    """
    before = {path for path, _ in nnx.to_flat_state(made)}
    kept = []
    for path, variable in nnx.to_flat_state(after):
        value = variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable
        is_sown = path not in before and isinstance(value, tuple)
        if not is_sown and not isinstance(variable, nnx.Intermediate):
            kept.append((path, variable))
    return nnx.from_flat_state(kept)
