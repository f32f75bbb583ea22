"""The version of a network of the user's own: a digest of its source.

Runs record it. So a run of an edited network does not count as a repetition of an older run.
"""

import ast
import contextlib
import hashlib
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder

from rethinking.errors import InputError

_INSTALLED = ("site-packages", "dist-packages")
# name -> the class that was loaded, and the digest of its source at that time. A long process, such
# as a sweep, goes on with the code that it has loaded, whatever happens to the file.
_loaded: dict[str, tuple[object, str]] = {}


def search_working_directory() -> None:
    """Lets this process import modules from its working directory.

    `python -m` does so by itself, but other ways to start a program do not.
    """
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())


def loaded_digest(name: str) -> str:
    """`digest` of the code that this process runs as the network `package.module:Class`."""
    if ":" in name:
        search_working_directory()
        # An error is explained where the network is made.
        with contextlib.suppress(Exception):
            importlib.import_module(name.partition(":")[0])
    return digest(name)


def digest(name: str) -> str:
    """Twelve hex digits of the source of the network `package.module:Class`; imports nothing.

    It covers the module's file and the modules beside it that it imports, directly or not: those
    in the same folder or package, without installed ones. "" for a network of this project, and
    for a module that is not found.
    """
    module, colon, class_name = name.partition(":")
    if not colon:
        return ""
    search_working_directory()
    loaded = getattr(sys.modules.get(module), class_name, None)
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


def require_current(name: str, given: str, now: str) -> None:
    """Raises InputError if `given`, a digest from another place, is not that of the code `now`."""
    if given and given != now:
        raise InputError(
            f"config.model.source={given} is not the present version of the network {name} "
            f"({now or 'which is not a network of your own'}). Restore that version, or leave "
            "config.model.source empty."
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
