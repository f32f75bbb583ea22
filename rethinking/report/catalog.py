"""What runs are of: rows of configs/, and sets of data."""

import functools
import json
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

from rethinking import config as configs
from rethinking.config import ConfigError

_CONFIGS = pathlib.Path(configs.__file__).parent.parent / "configs"


class DataSet(NamedTuple):
    """What a run was trained on."""

    name: str
    num_train: int  # 0: all of it

    def __str__(self) -> str:
        return f"{self.name}, {self.num_train} training examples" if self.num_train else self.name


def rows(experiment: str) -> tuple[str, ...]:
    """The rows that configs/EXPERIMENT.py lists; none if there is no such file."""
    module = _config_file(experiment)
    return tuple(module.ROWS) if module else ()


@functools.cache
def settings(experiment: str, row: str) -> dict[str, Any] | None:
    """The flat config of a row of configs/EXPERIMENT.py; None if there is none."""
    module = _config_file(experiment)
    try:
        # As a run directory has it: lists, not tuples.
        return configs.flat(json.loads(module.get_config(row).to_json())) if module else None
    except (ConfigError, ValueError, LookupError):
        return None


@functools.cache
def digests(experiment: str) -> dict[str, str]:
    """EXPERIMENT:ROW -> the digest of its config, for each of `rows` that has one."""
    found = {f"{experiment}:{row}": settings(experiment, row) for row in rows(experiment)}
    return {row: configs.digest(config) for row, config in found.items() if config is not None}


@functools.cache
def _config_file(experiment: str) -> ModuleType | None:
    if not experiment.isidentifier():  # it comes from a file: nothing but a plain name may become a path
        return None
    try:
        return configs.load_file(str(_CONFIGS / f"{experiment}.py"))
    except ConfigError:
        return None
