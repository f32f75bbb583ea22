"""Configs: how a field is declared, and what follows from that: defaults, checks, comparison.

Each kind of experiment declares its fields in a table `FIELDS`, field path -> `Field`, in
`rethinking.experiments.KIND`. This module knows no kind.
"""

import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from rethinking.errors import InputError, nearest, require, require_known


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting: its default, its meaning, and the values that it may have.

    Numbers must be finite. `minimum` and `maximum` are allowed values, `above` and `below` are not.
    A field with `scientific=False` changes where or how fast a run computes, but not its results.
    """

    default: Any
    doc: str
    choices: tuple[str, ...] | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None
    scientific: bool = True

    def replace(self, **changes: Any) -> "Field":
        """The same field with some of its attributes changed."""
        return dataclasses.replace(self, **changes)

    @property
    def range(self) -> str:
        """The allowed numbers in words, such as "at least 0 and below 1"; "" without a bound."""
        bounds = {
            "at least": self.minimum,
            "above": self.above,
            "at most": self.maximum,
            "below": self.below,
        }
        return " and ".join(
            f"{word} {_number(bound)}" for word, bound in bounds.items() if bound is not None
        )

    def check(self, name: str, value: Any) -> None:
        """Raises InputError, which names the allowed values, if `value` is not one of them."""
        if self.choices is not None:
            require_known(value, self.choices, f"config.{name}: unknown value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        require(math.isfinite(value), f"config.{name}={value}: must be a finite number.")
        allowed = (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )
        require(allowed, f"config.{name}={value}: must be {self.range}.")


Fields = Mapping[str, Field]

# Devices count with 32-bit integers.
LARGEST = 2**31

# The fields of every kind of experiment.
COMMON: Fields = {
    "experiment": Field(
        "", "name of the config file; the run's row is `experiment:row`", scientific=False
    ),
    "row": Field("", "the row that the config was made from", scientific=False),
    "kind": Field("training", "the kind of experiment, a module of `rethinking.experiments`"),
    "seed": Field(0, "seed of everything but the corruption", minimum=0, below=LARGEST),
    "num_devices": Field(
        0, "number of devices to use; 0: all", minimum=0, below=LARGEST, scientific=False
    ),
    "data.name": Field("digits", '"digits", or the name of a TFDS image-classification set'),
    "data.data_dir": Field(
        "",
        'folder of the TFDS sets; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets',
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
        'split to evaluate; "": test if its images have labels, else validation under one of its '
        "usual names",
    ),
    "data.test_fraction": Field(
        0.0,
        "above 0: evaluate this share of the training split instead, and do not train on it; the "
        "same images for all seeds",
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


def _number(bound: float | int) -> str:
    return "2**31" if bound == LARGEST else f"{bound:g}"


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
    """Raises InputError for the first value that its field does not allow."""
    for path, field in fields.items():
        field.check(path, get(config, path))


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
            fields[path] = value
    return fields


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
    """Imports a file of configs/: a module with ROWS and get_config(row)."""
    file = pathlib.Path(path)
    if not file.is_file():
        others = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise InputError(f"--config={path}: no such file. {nearest(path, others)}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config") or not hasattr(module, "ROWS"):
        raise InputError(
            f"--config={path} is not a config file. Define ROWS and get_config(row) in it, as the "
            "files of configs/ do."
        )
    return module
