"""The error for what a user can correct, and the checks that raise it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, with its cause and its remedy. Commands print the message and exit with code 2."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence that suggests the known names nearest to `name`, or lists all if none is near."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Known are: {', '.join(names)}."


def require(condition: bool, message: str) -> None:
    """Raises InputError with `message` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def require_known(name: str, names: Iterable[str], message: str) -> None:
    """Raises InputError, with `message` and the nearest name, unless `name` is in `names`."""
    if name not in names:
        raise InputError(f"{message} {name!r}. {nearest(name, names)}")
