"""The error for what a user can correct, and the checks that raise it."""

import difflib
import pathlib
import sysconfig
import traceback
from collections.abc import Iterable

# Folders of code that is not the user's own.
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
_PACKAGE = str(pathlib.Path(__file__).parent)


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


def described(error: BaseException) -> str:
    """An error in the user's own Python file, as "FILE, line N: NameError: MESSAGE".

    The file is left out if no line of it took part. The text has no full stop at its end.
    """
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((*_LIBRARIES, _PACKAGE, "<")):
            place = f"{frame.filename}, line {frame.lineno}: "
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}: "
        error = SyntaxError(error.msg)
    return f"{place}{type(error).__name__}: {str(error).strip().rstrip('.')}"
