"""Networks of pure functions: an object with `init` and `apply`."""

import inspect
from collections.abc import Mapping

from rethinking.errors import require
from rethinking.models.adapters import interface
from rethinking.models.adapters.interface import Model, Words, state_of

_CALLS = {"init": "init(key, x)", "apply": "apply(variables, x, train, key)"}


class PureFunctions(Model):
    """An object as `interface.Functions` describes it."""

    words = Words(
        field="argument",
        integers='keep whole numbers outside of "params"',
        growth="apply must return all state that init makes, under the same names.",
        shapes="Leave out what need not be kept.",
        keys="Keep keys as jax.random.key_data(key).",
    )

    def __init__(self, network: interface.Functions):
        super().__init__(type(network))
        self._network = network

    def init(self, key, x):
        """See `Model`."""
        made = self._network.init(key, x)
        require(
            isinstance(made, Mapping) and "params" in made,
            f'init of the network {self.name} returns {_form(made)}. Return {{"params": ...}}, '
            "with a further entry for each kind of state.",
        )
        return dict(made)

    def apply(self, variables, x, train, key=None):
        """See `Model`."""
        returned = self._network.apply(variables, x, train, key)
        is_pair = isinstance(returned, tuple) and len(returned) == 2
        require(
            is_pair and isinstance(returned[1], Mapping) and "params" not in returned[1],
            f"apply of the network {self.name} returns {_form(returned)}. Return (logits, state). "
            'The state is a dictionary with the entries of `variables` other than "params", or {}.',
        )
        outputs, state = returned
        return outputs, dict(state) if train else state_of(variables)

    def check_call(self):
        """Raises InputError unless both functions take the arguments that they get."""
        for name, call in _CALLS.items():
            signature = inspect.signature(getattr(self._network, name))
            try:
                signature.bind(*[None] * (call.count(",") + 1))
            except TypeError:
                require(
                    False,
                    f"the network {self.name} has {name}{signature}, but it is called as {call}. "
                    "Define it with these arguments, in this order.",
                )

    def remedy(self, error):
        """See `Model`."""
        return f"{super().remedy(error)} The variables may hold nothing but arrays."


def _form(value: object) -> str:
    """What a function has returned, in a few words."""
    if isinstance(value, tuple):
        return f"({', '.join(type(each).__name__ for each in value)})"
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(map(repr, value)) or 'nothing'}"
    return type(value).__name__
