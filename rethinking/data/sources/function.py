"""The arrays that a function of the user's own returns: package.module:function.

It is called without arguments, once in a process. It returns a dictionary with x_train, y_train,
x_test and y_test, or ((x_train, y_train), (x_test, y_test)) as Keras's load_data does.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from rethinking import failures, own_code
from rethinking.data.sources import raw
from rethinking.data.sources.in_memory import ArrayDescription
from rethinking.errors import InputError, require


def describe(name: str) -> ArrayDescription:
    """The set that the function `name` returns, checked.

    Raises InputError if the function cannot be imported, raises an exception, or returns no set.
    """
    function = own_code.load(name, "data set")
    require(
        callable(function),
        f"The data set {name} cannot be used: {name.partition(':')[2]} is a "
        f"{type(function).__name__}. Name a function without arguments that returns arrays.",
    )
    return ArrayDescription(name, *_call(function, name))


# A run describes the set before it loads it.
@functools.lru_cache(maxsize=1)
def _call(function: Callable[[], Any], name: str) -> raw.Prepared:
    """What the function returns, checked."""
    try:
        returned = function()
    except (InputError, MemoryError):
        raise
    except Exception as error:  # The function is the user's own and may raise anything.
        if isinstance(error, TypeError) and _is_of_call(error):
            raise InputError(
                f"The data set {name} cannot be made: the function is called without arguments "
                f"({error}). Give all its arguments defaults."
            ) from error
        raise InputError(
            f"{failures.placed_summary(error)} So the data set {name} cannot be made. Correct it "
            "there."
        ) from error
    return raw.prepared(_pairs(returned, name), name)


def _is_of_call(error: TypeError) -> bool:
    """Whether the call of a function failed before the function's first line."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _pairs(returned: Any, name: str) -> Mapping[str, tuple[Any, Any]]:
    if isinstance(returned, Mapping):
        return raw.split_pairs(returned, f"The dictionary of {name}")
    is_pairs = isinstance(returned, tuple | list) and len(returned) == 2
    if is_pairs and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in returned):
        return dict(zip(("train", "test"), map(tuple, returned), strict=True))
    shown = type(returned).__name__
    if isinstance(returned, tuple | list):
        shown += f" of {len(returned)}"
    raise InputError(
        f"{name} returned this: {shown}. It must return a dictionary with x_train, y_train, x_test "
        "and y_test, or ((x_train, y_train), (x_test, y_test))."
    )
