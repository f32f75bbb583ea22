"""The interface of a network, as training sees it, and that of a network of pure functions."""

import abc
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key

# The arrays of a network: "params" holds the trained ones. All other entries are collections of
# state, such as "batch_stats", each a tree of arrays.
Variables = dict[str, Any]


class Words(NamedTuple):
    """What messages about a network say, in the terms of the library that it is written in."""

    field: str  # what the network is constructed with
    integers: str  # where whole numbers belong
    growth: str  # what to do about a variable that appears in a step
    shapes: str  # what to do about a variable whose shape depends on the batch
    keys: str  # what to do about a key among the variables


class Model(abc.ABC):
    """A network: pure functions that make its variables, and that apply it to examples."""

    words: Words

    def __init__(self, definition: type):
        """`definition` is the class of the network, which messages name."""
        self.name = definition.__name__
        self.is_ours = definition.__module__.startswith("rethinking.")

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], x: jax.Array) -> Variables:
        """The variables before training, for examples like x [batch, ...]."""

    @abc.abstractmethod
    def apply(
        self, variables: Variables, x: jax.Array, train: bool, key: Key[Array, ""] | None = None
    ) -> tuple[Any, Variables]:
        """The outputs for the examples x [batch, ...], and the state after that.

        The state is the variables without "params". Only training changes it. Only training needs a
        `key`, from which all random numbers follow.
        """

    @abc.abstractmethod
    def check_call(self) -> None:
        """Raises InputError unless the network can be called as its kind must be."""

    def sown(self, x: jax.Array | jax.ShapeDtypeStruct) -> list[str]:
        """The collections of values that the network writes down but that training does not keep.

        Only shapes are computed.
        """
        return []

    def remedy(self, error: Exception) -> str:
        """What to do about an error that the network's own code has raised."""
        return f"Correct the network {self.name}, or config.model.options."


@runtime_checkable
class Functions(Protocol):
    """A network of pure functions, from any library. Such an object can be named in a config.

    Or name a class: it is constructed with `num_classes`, `example_shape`, `dtype` and
    `bn_axis_name`, where its constructor has arguments of these names, and with
    `config.model.options`.
    """

    def init(self, key: Key[Array, ""], x: jax.Array) -> Variables:
        """The variables before training, for examples like x [batch, ...].

        They are {"params": a tree of trained arrays}, with a further entry for each kind of state.
        """

    def apply(
        self, variables: Variables, x: jax.Array, train: bool, key: Key[Array, ""] | None
    ) -> tuple[Any, Variables]:
        """(logits [batch, num_classes], state) for the examples x [batch, ...].

        `state` has the entries of `variables` other than "params"; {} if there are none. `key` is
        new in each step of training, and None in evaluation.
        """


def state_of(variables: Variables) -> Variables:
    """The variables without the parameters."""
    return {name: value for name, value in variables.items() if name != "params"}
