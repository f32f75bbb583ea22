"""What runs are of: rows of experiments, and sets of data."""

import functools
import json
from typing import Any, NamedTuple

from rethinking import config as fields
from rethinking import experiments
from rethinking.rows import EXPERIMENTS


class DataSet(NamedTuple):
    """What a run was trained on."""

    name: str
    num_train: int  # 0: all of it

    def __str__(self) -> str:
        return f"{self.name}, {self.num_train} training examples" if self.num_train else self.name


def rows(experiment: str) -> tuple[str, ...]:
    """The rows of an experiment; none if it is not one of the project's."""
    return EXPERIMENTS[experiment].rows if experiment in EXPERIMENTS else ()


@functools.cache
def settings(experiment: str, row: str) -> dict[str, Any] | None:
    """The flat config of a row of an experiment; None if there is none."""
    if experiment not in EXPERIMENTS:
        return None
    try:
        # As a run directory has it: lists, not tuples.
        return fields.flat(json.loads(EXPERIMENTS[experiment].get_config(row).to_json()))
    except (ValueError, LookupError):
        return None


@functools.cache
def digests(experiment: str) -> dict[str, str]:
    """EXPERIMENT:ROW -> the digest of its config, for each of `rows` that has one."""
    found = {f"{experiment}:{row}": settings(experiment, row) for row in rows(experiment)}
    return {row: experiments.digest(config) for row, config in found.items() if config is not None}
