"""Code of the user's own, such as a network: importing it, and its version, a digest of its source.

Runs record the version. So a run of edited code does not count as a repetition of an older run.
"""

import ast
import contextlib
import hashlib
import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

from rethinking import failures
from rethinking.errors import InputError, nearest


class Place(NamedTuple):
    """Where a config may name code of the user's own."""

    field: str  # the field that names it
    what: str  # what it is, in words


# By the field that records the version of that code.
PLACES = {
    "model.source": Place("model.name", "network"),
    "optimizer_source": Place("optimizer", "optimizer"),
    "data.source": Place("data.name", "data set"),
}
_INSTALLED = ("site-packages", "dist-packages")
# name -> the object that was loaded, and the digest of its source at that time. A long process,
# such as a sweep, goes on with the code that it has loaded, whatever happens to the file.
_loaded: dict[str, tuple[object, str]] = {}


def search_working_directory() -> None:
    """Lets this process import modules from its working directory.

    `python -m` does so by itself, but other ways to start a program do not.
    """
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())


def is_own(name: str) -> bool:
    """Whether `name` is package.module:NAME. The version in "mnist:3.0.1" is not such a name."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name) is not None


def load(name: str, what: str, is_one: Callable[[object], bool] = callable) -> Any:
    """The object called `package.module:NAME`, imported.

    `what` says in the messages what it is, such as "optimizer". `is_one` tells which objects of the
    module are such, to suggest one. Raises InputError, with file and line, if it cannot be
    imported.
    """
    problem = f"The {what} {name} cannot be used"
    module_name, _, object_name = name.partition(":")
    if not is_own(name):
        raise InputError(f"{problem}: write the name as package.module:NAME.")
    search_working_directory()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{problem}: importing {module_name} failed ({error}). Install it, or run from the "
            "folder that holds it, or add that folder to PYTHONPATH."
        ) from error
    except Exception as error:  # The file is the user's own and may raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} {problem}, because importing {module_name} failed. "
            "Correct it there."
        ) from error
    if not hasattr(module, object_name):
        names = [each for each, value in vars(module).items() if is_one(value)]
        remedy = nearest(object_name, names) if names else f"It defines no {what}."
        raise InputError(f"{problem}: {module_name} has no {object_name}. {remedy}")
    return getattr(module, object_name)


def loaded_digest(name: str) -> str:
    """`digest` of the code that this process runs under the name `package.module:NAME`."""
    if is_own(name):
        search_working_directory()
        # An error is explained where the object is used.
        with contextlib.suppress(Exception):
            importlib.import_module(name.partition(":")[0])
    return digest(name)


def digest(name: str) -> str:
    """Twelve hex digits of the source of `package.module:NAME`; imports nothing.

    It covers the module's file and the modules beside it that it imports, directly or not: those
    in the same folder or package, without installed ones. "" for a name of this project, and for a
    module that is not found.
    """
    module, _, object_name = name.partition(":")
    if not is_own(name):
        return ""
    search_working_directory()
    loaded = getattr(sys.modules.get(module), object_name, None)
    if loaded is not None and _loaded.get(name, (None,))[0] is loaded:
        return _loaded[name][1]
    importlib.invalidate_caches()  # the files may be new
    files = _files(module)
    found = hashlib.sha256()
    for each in sorted(files):
        source = files[each].read_bytes()
        found.update(f"{each} {len(source)} ".encode() + source)
    value = found.hexdigest()[:12] if files else ""
    if loaded is not None:
        _loaded[name] = loaded, value
    return value


def require_current(field: str, name: str, given: str, now: str) -> None:
    """Raises InputError if `given`, a digest from another place, is not that of the code `now`.

    `field` is a key of `PLACES`.
    """
    if given and given != now:
        what = PLACES[field].what
        raise InputError(
            f"config.{field}={given} is not the present version of the {what} {name} "
            f"({now or f'which is not your own {what}'}). Restore that version, or leave "
            f"config.{field} empty."
        )


def _files(module: str) -> dict[str, pathlib.Path]:
    """The files of the module and of those beside it that it imports, by module name."""
    first = _find(module)
    if first is None:
        return {}
    # The folder that holds the module or its package.
    root = first.parents[module.count(".") + (first.name == "__init__.py")]
    if root.name in _INSTALLED:
        root = first if "." not in module else root / module.partition(".")[0]
    files = {}
    left = [module]
    while left:
        name = left.pop()
        file = _find(name)
        if name in files or file is None or name.partition(".")[0] == "rethinking":
            continue
        is_beside = file == first or file.is_relative_to(root)
        if not is_beside or {*_INSTALLED} & {*file.relative_to(root).parts}:
            continue
        files[name] = file
        left += _imported(name, file)
    return files


def _find(module: str) -> pathlib.Path | None:
    """The file of a module, found without importing anything; None if it has no file."""
    path = None
    spec = None
    for end in range(module.count(".") + 1):
        name = ".".join(module.split(".")[: end + 1])
        with contextlib.suppress(ImportError, ValueError):
            spec = PathFinder.find_spec(name, path)
            if spec is None and path is None:  # another finder may know a package
                spec = importlib.util.find_spec(name)
        if spec is None:
            break
        path = spec.submodule_search_locations or []
    origin = spec.origin if spec else getattr(sys.modules.get(module), "__file__", None)
    file = pathlib.Path(origin).resolve() if origin else None
    return file if file and file.is_file() else None


def _imported(module: str, file: pathlib.Path) -> Iterator[str]:
    """The names of all modules that a module's source may import, and of their packages."""
    yield from _packages(module)
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # it cannot run, or is no Python source
        return
    package = module.split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from (*_packages(alias.name), alias.name)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (*_packages(base), base)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _packages(module: str) -> list[str]:
    """The packages that a module lies in: "a.b.c" has "a" and "a.b"."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
