"""The run directories below some folders: finding them, and grouping their runs by row."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rethinking import experiments, rows
from rethinking.config import flat
from rethinking.errors import InputError
from rethinking.report import paper
from rethinking.report.run import STATUSES, Run, printable, read

_LOG = logging.getLogger(__name__)
FILES = ("config.json", "metrics.jsonl", "result.json")


@dataclasses.dataclass(frozen=True)
class Collection:
    """Every run found, each experiment once per seed, and what was left out."""

    runs: list[Run]
    digests: dict[str, set[str]]  # row -> the digests of its runs, see `_digests`
    broken: list[str]
    repeated: list[str]
    damaged: list[str]  # runs that are shown although something is wrong with their files

    def of_row(self, row: str) -> list[Run]:
        """The runs of a row by seed, also those made for another row with the same config."""
        digests = self.digests.get(row, set())
        return sorted((run for run in self.runs if run.digest in digests), key=lambda run: run.seed)

    def rows(self, experiment: str) -> list[str]:
        """The names of an experiment's rows that have runs, without the experiment."""
        names = (row.partition(":") for row in sorted(self.digests))
        return [name for of, _, name in names if of == experiment]

    def of_experiment(self, experiment: str) -> list[Run]:
        """The runs of all rows of an experiment."""
        found = {}
        for name in self.rows(experiment):
            found |= {run.path: run for run in self.of_row(f"{experiment}:{name}")}
        return list(found.values())


def grouped(values: Iterable, key: Callable) -> dict:
    """Values by key, in the order in which the keys appear."""
    groups = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def collect(folders: Sequence[str | os.PathLike]) -> Collection:
    """Reads every run directory (a folder with one of FILES) at or below `folders`.

    A warning names each run, and each folder, that cannot be read. Of runs with equal config and
    seeds, the one that got furthest is kept. Raises InputError if one of `folders` is not a folder.
    """
    found, repeated = [], []
    paths, problems = _find(folders)
    for path in paths:
        try:
            found.append(read(path))
        except OSError as error:
            problems.append(f"{error.filename or path}: {error.strerror or error}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    _name_splits(found)
    broken = [printable(problem) for problem in problems]
    for problem in broken:
        _LOG.warning("left out %s", problem)
    kept = {}
    for run in sorted(found, key=lambda run: (STATUSES.index(run.status), -len(run.metrics))):
        first = kept.setdefault(run.key, run)
        if first is not run:
            text = f"{run.path} ({run.status}) repeats {first.path} ({first.status})"
            repeated.append(printable(text))
    runs = [run for run in found if kept[run.key] is run]
    damaged = [printable(f"{run.path}: {run.damage}") for run in runs if run.damage]
    for problem in damaged:
        _LOG.warning("damaged: %s", problem)
    return Collection(runs, _digests(found), broken, repeated, damaged)


def _name_splits(runs: Sequence[Run]) -> None:
    """Adds the split to the settings of runs of one config that were evaluated on different ones.

    A config may leave the choice to the data set, and the set may have changed in between.
    """
    for group in grouped(runs, lambda run: run.digest).values():
        if len({run.eval_split for run in group if run.eval_split}) > 1:
            for run in group:
                run.settings["data.eval_split"] = run.eval_split


def _digests(runs: Sequence[Run]) -> dict[str, set[str]]:
    """The digests of every row that was run.

    A row of `rethinking.rows` that was not run takes the runs of another experiment with the same
    config: Figure 1 and Table 1 share some. Of one experiment, only the first such row does.
    """
    digests: dict[str, set[str]] = {}
    named = set()
    for run in runs:
        digests.setdefault(run.row, set()).add(run.digest)
        named.add((run.experiment, run.digest))
    there = {digest for _, digest in named}
    for experiment in sorted({*paper.TABLES, *(experiment for experiment, _ in named)}):
        for row, digest in row_digests(experiment).items():
            if digest in there and (experiment, digest) not in named:
                digests.setdefault(row, set()).add(digest)
                named.add((experiment, digest))
    return digests


@functools.cache
def row_settings(experiment: str, row: str) -> dict[str, Any] | None:
    """The flat config of a row of `rethinking.rows`; None if it has no such row."""
    if experiment not in rows.EXPERIMENTS:
        return None
    try:
        config = rows.EXPERIMENTS[experiment].get_config(row)
    except (ValueError, LookupError):  # the name comes from a file and may be anything
        return None
    return flat(json.loads(config.to_json()))  # as a run directory has it: lists, not tuples


@functools.cache
def row_digests(experiment: str) -> dict[str, str]:
    """EXPERIMENT:ROW -> the digest of its config, for each row of `rethinking.rows`."""
    if experiment not in rows.EXPERIMENTS:
        return {}
    digests = {}
    for row in rows.EXPERIMENTS[experiment].rows:
        digests[f"{experiment}:{row}"] = experiments.digest(row_settings(experiment, row))
    return digests


def state(folders: Sequence[str | os.PathLike]) -> dict[pathlib.Path, tuple[int, int]]:
    """When each file of the run directories was last written, and its size.

    Two states differ if anything has changed.
    Raises InputError if one of `folders` is not a folder.
    """
    found = {}
    for path in _find(folders)[0]:
        for name in FILES:
            with contextlib.suppress(OSError):
                status = (path / name).stat()
                found[path / name] = status.st_mtime_ns, status.st_size
    return found


def slug(name: str) -> str:
    """`name` as part of a file name. A changed one gets a hash, so that names stay different.

    It has ASCII characters only: file systems count bytes, and some change other characters.
    """
    cleaned = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:80]
    if cleaned == name:
        return name
    return f"{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _find(folders: Sequence[str | os.PathLike]) -> tuple[list[pathlib.Path], list[str]]:
    """The run directories, and what is wrong with folders that cannot be read."""
    paths = {}  # by resolved path, since folders may overlap
    problems = []

    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: the folder cannot be read: {error.strerror}")

    for folder in folders:
        if "://" in os.fspath(folder):
            raise InputError(
                f"--runs={folder}: the report reads runs from this machine. "
                f"Copy them: gcloud storage cp --recursive {folder} runs"
            )
        if not pathlib.Path(folder).is_dir():
            raise InputError(
                f"--runs={folder}: no such folder. Name one that holds run directories."
            )
        for place, subfolders, files in os.walk(folder, onerror=note):
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints")
            if not {*FILES}.isdisjoint(files):
                paths.setdefault(pathlib.Path(place).resolve(), pathlib.Path(place))
    return list(paths.values()), problems
