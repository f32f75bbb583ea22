"""Fields: the type, the range and the meaning of each setting of a config, declared once."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rethinking.errors import InputError, require, require_known

# Devices count with 32-bit integers.
LARGEST = 2**31
# Bounds within which float32 neither overflows nor becomes zero.
TINY, HUGE = 1e-30, 1e30
# The type of a field in words.
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a dictionary",
}
_MANY = 60  # characters of a value that a message shows


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting: its default, its meaning, and the values that it may have.

    A value has the type of the default; a whole number may stand for a number. Numbers are finite.
    `minimum` and `maximum` are allowed values, `above` and `below` are not. A text has at most
    `longest` characters, all on one line. A field with `scientific=False` changes where or how fast
    a run computes, but not its results.
    """

    default: Any
    doc: str
    choices: tuple[str, ...] | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    longest: int = 200
    scientific: bool = True

    def replace(self, **changes: Any) -> "Field":
        """The same field with some of its attributes changed."""
        return dataclasses.replace(self, **changes)

    @property
    def type(self) -> type:
        """bool, int, float, str, or dict for settings that are not declared one by one."""
        return type(self.default)

    @property
    def range(self) -> str:
        """The allowed numbers in words, such as "at least 0 and below 1"; "" without a bound."""
        if self.minimum is not None and self.minimum == self.maximum:
            return _number(self.minimum)
        bounds = {
            "at least": self.minimum,
            "above": self.above,
            "at most": self.maximum,
            "below": self.below,
        }
        return " and ".join(
            f"{word} {_number(bound)}" for word, bound in bounds.items() if bound is not None
        )

    @property
    def words(self) -> str:
        """The type and the range in words, such as "a whole number, at least 1"."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        return ", ".join(filter(None, (_WORDS[self.type], self.range)))

    @property
    def shell_example(self) -> str:
        """An allowed value, as it is written on the command line."""
        if self.type is str:
            return self.choices[0] if self.choices else "NAME"
        return f'"{self.example}"' if self.type is dict else self.example

    @property
    def example(self) -> str:
        """An allowed value, as Python writes it."""
        if self.choices is not None:
            return repr(self.choices[0])
        return {str: "'NAME'", dict: "{'NAME': 1}"}.get(self.type, repr(self.default))

    def check(self, name: str, value: Any) -> None:
        """Raises InputError, which names the allowed values, if `value` is not one of them."""
        shown = f"config.{name}={show(value)}"
        require(
            _has_type(value, self.type),
            f"{shown}: must be {self.words}, such as {self.example}.",
        )
        if self.type is str:
            require(
                len(value) <= self.longest and value.isprintable(),
                f"{shown}: must be a text of at most {self.longest} characters on one line.",
            )
            if self.choices is not None:
                require_known(value, self.choices, f"config.{name}: unknown value")
        elif self.type is dict:
            check_free(f"config.{name}", value)
        elif self.type is not bool:
            self._check_number(shown, value)

    def _check_number(self, shown: str, value: float | int) -> None:
        if isinstance(value, float):
            require(math.isfinite(value), f"{shown}: must be a finite number.")
        allowed = (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )
        require(allowed, f"{shown}: must be {self.range}.")


Fields = Mapping[str, Field]


def check_free(name: str, value: Any) -> None:
    """Raises InputError unless JSON can keep `value`, so that config.json can name it exactly.

    `name` is the name of the value, such as "config.model.options". Texts, numbers, True, False,
    None, and lists and dictionaries of them are allowed.
    """
    if isinstance(value, dict | ConfigDict):
        for key in value:
            require(
                isinstance(key, str) and key.isidentifier(),
                f"{name}: {show(key)} is not a name. Write names as in {{'width': 64}}.",
            )
            check_free(f"{name}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            check_free(f"{name}[{number}]", each)
    elif isinstance(value, float):
        require(math.isfinite(value), f"{name}={value}: must be a finite number.")
    elif not isinstance(value, str | int | None):
        raise InputError(
            f"{name}={show(value)}: a {type(value).__name__} cannot be kept in config.json. "
            "Use numbers, texts, True, False, None, lists and dictionaries."
        )


def show(value: Any) -> str:
    """`value` as Python writes it, shortened for a message. Numbers look as on the command line."""
    try:
        text = repr(value) if not isinstance(value, ConfigDict) else repr(value.to_dict())
    except ValueError:  # Python does not write numbers of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= _MANY else f"{text[:_MANY]}..."


def _has_type(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is dict:
        return isinstance(value, dict | ConfigDict)
    return isinstance(value, kind)


def _number(bound: float | int) -> str:
    if bound == LARGEST:
        return "2**31"
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
