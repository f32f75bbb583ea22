"""Kinds of flags that absl does not have: paths in which `~` is expanded, and seconds."""

import math
from typing import Any

from absl import flags

from rethinking import paths

flags.disclaim_key_flags()  # --help lists a flag with the module that calls these functions


class _Path(flags.ArgumentParser):
    """A path. The file or folder need not exist."""

    syntactic_help = "a path; ~ is your home folder"

    def parse(self, argument: str) -> str:
        """Raises InputError, which is a ValueError, if the home folder is not known."""
        if not argument or "\0" in argument:
            raise ValueError("a path is needed")
        return paths.expand(argument)


class _Paths(flags.ListParser):
    """Paths with commas between them."""

    def parse(self, argument: str | list[str] | None) -> list[str]:
        """Raises InputError, which is a ValueError, if the home folder is not known."""
        found = [_Path().parse(path) for path in super().parse(argument)]
        if not found:
            raise ValueError("a path is needed")
        return found


class _Seconds(flags.FloatParser):
    """A number of seconds, at least 0."""

    def __init__(self, most: float):
        super().__init__()
        limit = "" if most == math.inf else f" and at most {most:,.0f}"
        self.most, self.syntactic_help = most, f"a number of seconds, at least 0{limit}"

    def is_outside_bounds(self, value: float) -> bool:
        """Whether `value` is negative, nan, or more than the most."""
        return not 0 <= value <= self.most


def define_path(name: str, default: str | None, doc: str, **more: Any) -> flags.FlagHolder:
    """A flag whose value is a path, with `~` expanded."""
    return flags.DEFINE(_Path(), name, default, doc, **more)


def define_paths(name: str, default: list[str] | None, doc: str, **more: Any) -> flags.FlagHolder:
    """A flag whose value is a list of paths, written with commas between them."""
    serializer = flags.CsvListSerializer(",")
    return flags.DEFINE(_Paths(), name, default, doc, serializer=serializer, **more)


def define_seconds(
    name: str, default: float, doc: str, most: float = math.inf, **more: Any
) -> flags.FlagHolder:
    """A flag whose value is a number of seconds, from 0 to `most`. It is never nan."""
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE(_Seconds(most), name, default, doc, serializer=serializer, **more)
