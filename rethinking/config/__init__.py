"""Configs: how a field is declared, and what follows from that: defaults, checks, comparison.

Each kind of experiment declares its fields in a table `FIELDS`, field path -> `Field`, in
`rethinking.experiments.KIND`. This module does not depend on the kinds.
"""

import contextlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from rethinking import failures, paths
from rethinking.config.fields import LARGEST, Field, Fields, show
from rethinking.errors import InputError, nearest, require

# The fields of every kind of experiment.
COMMON: Fields = {
    "experiment": Field(
        "", 'name of the experiment; "": the name of the config file', scientific=False
    ),
    "row": Field(
        "",
        'name of the row, as EXPERIMENT:ROW; "": made from the config file and its row',
        scientific=False,
    ),
    "kind": Field("training", "the kind of experiment, a module of `rethinking.experiments`"),
    "seed": Field(0, "seed of everything but the corruption", minimum=0, below=LARGEST),
    "num_devices": Field(
        0, "number of devices to use; 0: all", minimum=0, below=LARGEST, scientific=False
    ),
    "data.name": Field(
        "digits",
        '"digits"; the name of a TFDS set; the path of an .npz file, a folder of images or a '
        "Hugging Face set; or package.module:function: see docs/own_data.md",
        longest=4096,
    ),
    "data.source": Field(
        "",
        "the version of a data set of your own, which a run fills in: see model.source",
    ),
    "data.data_dir": Field(
        "",
        'folder of the TFDS sets; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets',
        longest=4096,
        scientific=False,
    ),
    "data.num_train": Field(
        0,
        "keep the first n of a seeded permutation of the training set; 0: all, in order",
        minimum=0,
        below=LARGEST,
    ),
    "data.eval_split": Field(
        "",
        'split to evaluate; "": test if its examples have labels, else a validation split',
    ),
    "data.test_fraction": Field(
        0.0,
        "above 0: evaluate this share of the training split instead, and do not train on it; the "
        "same examples for all seeds",
        minimum=0,
        below=1,
    ),
    "randomize.labels": Field(
        0.0, "probability that a training label is replaced by a random one", minimum=0, maximum=1
    ),
    "randomize.seed": Field(0, "seed of the corruption", minimum=0, below=LARGEST),
}
NUM_TEST = Field(
    0,
    "keep the first n of a seeded permutation of the test set; 0: all, in order",
    minimum=0,
    below=LARGEST,
)


def defaults(fields: Fields) -> ConfigDict:
    """A config with the default of every field; "data.name" becomes config.data.name."""
    nested: dict[str, Any] = {}
    for path, field in fields.items():
        *groups, name = path.split(".")
        group = nested
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = field.default
    return ConfigDict(nested)


def check_fields(config: ConfigDict, fields: Fields) -> None:
    """Raises InputError unless `config` has exactly these fields, with allowed values."""
    for name in sorted({path.partition(".")[0] for path in fields if "." in path}):
        group = config.get(name)
        require(
            isinstance(group, ConfigDict),
            f"config.{name}={show(group)}: it is a group of fields. Set its fields one by one.",
        )
    found = set(_leaves(config, fields))
    for path in sorted(found - fields.keys()):
        raise InputError(
            f"config.{path}: unknown field of config.kind={config.kind!r}. {nearest(path, fields)}"
        )
    for path in fields:
        require(
            path in found,
            f"config.{path} is missing, a field of config.kind={config.kind!r}. Begin with "
            "rethinking.experiments.defaults of that kind, and set the fields of a group one by "
            "one.",
        )
        fields[path].check(path, get(config, path))


def with_types(config: ConfigDict, fields: Fields) -> ConfigDict:
    """`config` with 1.0 in place of 1 in fields that hold floating-point numbers.

    So --config.FIELD=1 and --config.FIELD=1.0 describe the same run. Other values do not change.
    """
    whole = {}
    for path in _leaves(config, fields):
        value = get(config, path)
        if path in fields and fields[path].type is float and type(value) is int:
            with contextlib.suppress(OverflowError):
                whole[path] = float(value)
    if not whole:
        return config
    changed = config.to_dict()
    for path, value in whole.items():
        *groups, name = path.split(".")
        group = changed
        for key in groups:
            group = group[key]
        group[name] = value
    return ConfigDict(changed)


def refuse_without_effect(
    config: ConfigDict, fields: Fields, paths: Iterable[str], because: str
) -> None:
    """Raises InputError if one of these fields is not at its default.

    `because` names the setting with which they do nothing.
    """
    for path in paths:
        value, default = get(config, path), fields[path].default
        require(
            value == default,
            f"config.{path}={show(value)} has no effect with {because}. Leave it at {default!r}.",
        )


def _leaves(config: ConfigDict, fields: Fields, prefix: str = "") -> Iterator[str]:
    """The paths of all settings; a field that is a dictionary is one of them."""
    for key in config:
        path = f"{prefix}{key}"
        value = config[key]
        if isinstance(value, ConfigDict | dict) and path not in fields:
            yield from _leaves(value, fields, f"{path}.")
        else:
            yield path


def get(config: ConfigDict, path: str) -> Any:
    """The value of a field such as "data.name"."""
    for key in path.split("."):
        config = config[key]
    return config


def flat(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"data.name": ...}."""
    fields = {}
    for key, value in config.items():
        path = prefix + key
        if isinstance(value, ConfigDict | dict):
            fields.update(flat(value, path + "."))
        else:
            fields[path] = _as_json(value)
    return fields


def _as_json(value: Any) -> Any:
    """`value` with lists in place of tuples, as when config.json is read."""
    return [_as_json(each) for each in value] if isinstance(value, list | tuple) else value


def require_field(path: str, config: ConfigDict) -> None:
    """Raises InputError, with the nearest name, unless `config` has that field or group."""
    found: Any = config
    for key in path.split("."):
        if isinstance(found, ConfigDict) and not found:
            group = path.rpartition(".")[0]
            raise InputError(
                f"config.{path}: nothing is set in that group yet. Set the whole group: "
                f"--config.{group}=\"{{'{key}': VALUE}}\""
            )
        if not isinstance(found, ConfigDict) or key not in found:
            name = path.rpartition(".")[2]
            fields = flat(config)
            elsewhere = [other for other in fields if other.rpartition(".")[2] == name]
            raise InputError(f"config.{path}: unknown field. {nearest(path, elsewhere or fields)}")
        found = found[key]


def load_file(path: str) -> ModuleType:
    """Imports a file of configs/: a module with ROWS and get_config(row).

    The project's own configs/FILE.py is found from any working directory that has no such file.
    Raises InputError, with the line, if the file has a mistake.
    """
    file = pathlib.Path(paths.expand(path))
    ours = pathlib.Path(__file__).parents[2] / file
    if not file.is_file() and file.parts[:1] == ("configs",) and ours.is_file():
        file = ours
    if not file.is_file():
        others = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise InputError(f"--config={path}: no such file. {nearest(path, others)}")
    require(file.suffix == ".py", f"--config={path} is not a Python file. Name a file NAME.py.")
    spec = importlib.util.spec_from_file_location("rethinking_config", file)
    module = importlib.util.module_from_spec(spec)
    # Data classes look for their module there.
    sys.modules[spec.name] = module
    with failures.users_code(f"--config={path}"):
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config") or not hasattr(module, "ROWS"):
        raise InputError(
            f"--config={path} is not a config file. Define ROWS and get_config(row) in it, as the "
            "files of configs/ do."
        )
    return module


def load(file_and_row: str) -> ConfigDict:
    """The config of FILE:ROW. Without ROW it is the file's default.

    Raises InputError for an unknown file or row, and, with the line, for a mistake in the file.
    """
    file, _, row = file_and_row.partition(":")
    module = load_file(file)
    if not row:
        needed = [
            parameter
            for parameter in inspect.signature(module.get_config).parameters.values()
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        ]
        require(
            not needed,
            f"--config={file}: name one of its ROWS, as in --config={file}:ROW.",
        )
    with failures.users_code(f"--config={file_and_row}"):
        config = module.get_config(row) if row else module.get_config()
    require(
        isinstance(config, ConfigDict),
        f"--config={file_and_row}: get_config returns a {type(config).__name__}. Return a "
        'config, which rethinking.experiments.defaults("training") makes.',
    )
    return config
