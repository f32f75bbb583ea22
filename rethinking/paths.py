"""Paths that users write: `~` is their home folder."""

import os
import pathlib
import tempfile

from rethinking.errors import InputError


def expand(path: str) -> str:
    """`path` with its leading `~` or `~USER` replaced by that home folder.

    Raises InputError if nothing says where that is. A shell does not replace the `~` in --flag=~/x.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise InputError(
            f"{path}: the home folder {user} is not known. Write the whole path, or set $HOME. "
            f"For a file of this name, write ./{path}"
        )
    return expanded


def cache() -> pathlib.Path:
    """The folder for files that can be made again: $XDG_CACHE_HOME, or else ~/.cache.

    Without a home folder, it is in the folder for temporary files.
    """
    return _own("XDG_CACHE_HOME", "~/.cache", "cache")


def state() -> pathlib.Path:
    """The folder for what programs remember: $XDG_STATE_HOME, or else ~/.local/state.

    Without a home folder, it is in the folder for temporary files.
    """
    return _own("XDG_STATE_HOME", "~/.local/state", "state")


def _own(variable: str, usual: str, name: str) -> pathlib.Path:
    given = os.environ.get(variable)
    if given:
        return pathlib.Path(expand(given))
    try:
        return pathlib.Path(expand(usual))
    except InputError:
        return pathlib.Path(tempfile.gettempdir(), f"{name}-{os.getuid()}")
