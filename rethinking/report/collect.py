"""Run directories as values: reading them, whatever state they are in, and grouping them into rows."""

import dataclasses
import json
import logging
import math
import os
import pathlib
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rethinking import config as configs
from rethinking.config import ConfigError

_LOG = logging.getLogger(__name__)
STATUSES = ("complete", "diverged", "unfinished")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory."""

    path: pathlib.Path
    settings: dict[str, Any]  # the config, flat: "data.name" -> "cifar10"
    metrics: list[dict[str, Any]]  # in order, up to the first line that cannot be read
    result: dict[str, Any] | None
    digest: str  # equal for runs that differ in their seeds alone

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return self.result["status"] if self.result else "unfinished"

    @property
    def row(self) -> str:
        """The row with its experiment: "table1:inception+crop"."""
        row = self.settings["row"]
        return row if ":" in row else f"{self.settings.get('experiment')}:{row}"

    @property
    def kind(self) -> str:
        """What was done: "training", "kernels", "expressivity", "complexity"."""
        return self.settings.get("kind", "training")

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def key(self) -> tuple:
        """Equal for two runs exactly when they are the same experiment with the same seeds."""
        return self.digest, self.seed, self.settings.get("randomize.seed")

    def value(self, field: str) -> float | None:
        """A number of result.json; None where there is none."""
        return number((self.result or {}).get(field))

    @property
    def fit_epoch(self) -> float | None:
        """The number of epochs after which the training set was fitted; None if it never was."""
        step, steps, epochs = (self.value(field) for field in ("fit_step", "steps", "epochs"))
        return step * epochs / steps if step is not None and steps and epochs else None


@dataclasses.dataclass(frozen=True)
class Collection:
    """Every run found, each experiment once per seed, and what is to be said about those left out."""

    runs: list[Run]
    digests: dict[str, frozenset[str]]  # row -> the configs it was run with, also where an equal run stands for it
    broken: list[str]
    repeated: list[str]

    def of_row(self, row: str, also: Iterable[str] = ()) -> list[Run]:
        """The runs of a row: those that bear its name, and those of the same config (or of the digests in `also`)."""
        digests = self.digests.get(row, frozenset()).union(also)
        return sorted((run for run in self.runs if run.row == row or run.digest in digests), key=lambda run: run.seed)


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divisor n - 1; None for n = 1) of n values."""

    mean: float
    std: float | None
    n: int


def statistic(values: Iterable[float | None]) -> Statistic | None:
    """The statistic of the values that are there; None if none is."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Statistic(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number (JSON's true and false are not), else None."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def collect(folders: Sequence[str | os.PathLike]) -> Collection:
    """Reads every run directory (a folder with a config.json) at or below `folders`.

    A run that cannot be read is named in a warning and left out. Of runs with equal config and seeds one is kept, the
    one that got furthest. Raises ConfigError if one of `folders` is no folder.
    """
    found, broken = [], []
    for path in _find(folders):
        try:
            found.append(read(path))
        except (ValueError, OSError) as error:  # JSON's and UTF-8's errors are ValueErrors
            broken.append(f"{path}: {error}")
            _LOG.warning("left out %s", broken[-1])
    digests = {}
    for run in found:
        digests[run.row] = digests.get(run.row, frozenset()) | {run.digest}
    kept, repeated = {}, []
    for run in sorted(found, key=lambda run: (STATUSES.index(run.status), -len(run.metrics))):
        first = kept.setdefault(run.key, run)
        if first is not run:
            repeated.append(f"{run.path} ({run.status}) repeats {first.path} ({first.status})")
    return Collection([run for run in found if kept[run.key] is run], digests, broken, repeated)


def slug(name: str) -> str:
    """`name` as part of a file name."""
    return re.sub(r"[^\w.-]", "_", name)


def _find(folders: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    paths = {}  # by resolved path, since folders may overlap
    for folder in folders:
        if not pathlib.Path(folder).is_dir():
            raise ConfigError(f"--runs={folder}: no such folder. Name one that holds run directories.")
        for place, subfolders, files in os.walk(folder):
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints")
            if "config.json" in files:
                paths.setdefault(pathlib.Path(place).resolve(), pathlib.Path(place))
    return list(paths.values())


def read(path: pathlib.Path) -> Run:
    """Reads one run directory; raises ValueError, with the reason, or OSError if it cannot be read."""
    config = _json_object(path / "config.json")
    settings = configs.flat(config)
    if not isinstance(settings.get("row"), str) or type(settings.get("seed")) is not int:
        raise ValueError("config.json is not that of a run: no row or no seed")
    if settings.get("kind", "training") not in configs.KINDS:
        raise ValueError(f"config.json is of an unknown kind: {settings['kind']!r}")
    result = _json_object(path / "result.json") if (path / "result.json").exists() else None
    if result is not None and result.get("status") not in ("complete", "diverged"):
        raise ValueError(f"result.json has status {result.get('status')!r}, not complete or diverged")
    digest = (result or {}).get("config_digest") or configs.digest(config)
    return Run(path, settings, _json_lines(path / "metrics.jsonl"), result, str(digest))


def _json_object(file: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON (cut short?): {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return value


def _json_lines(file: pathlib.Path) -> list[dict[str, Any]]:
    lines = []
    if file.exists():
        for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break  # a killed process may leave its last line half written
            if isinstance(line, dict):
                lines.append(line)
    return lines


def discrepancies(runs: Sequence[Run]) -> list[str]:
    """Sentences on what `runs`, the seeds of one row, do not have in common but should: code revision and config."""
    sentences = []
    finished = [run for run in runs if run.result]
    revisions = _seeds_by(finished, lambda run: str(run.result.get("revision")))
    if len(revisions) > 1:
        sentences.append(f"Made with different revisions of the code: {_listed(revisions)}.")
    digests = _seeds_by(runs, lambda run: run.digest)
    if len(digests) > 1:
        fields = "; ".join(f"{field} {_listed(seeds)}" for field, seeds in differing(runs).items())
        sentences.append(f"Made with different configs: {fields or _listed(digests)}.")
    return sentences


def differing(runs: Sequence[Run], ignored: Sequence[str] = ()) -> dict[str, dict[str, list[int]]]:
    """The scientific settings in which `runs` differ, seeds and `ignored` aside: field -> value -> seeds."""
    fields = sorted({field for run in runs for field in run.settings})
    skipped = {*configs.UNSCIENTIFIC, *configs.SEEDS, *ignored}
    values = {field: _seeds_by(runs, lambda run, field=field: json.dumps(run.settings.get(field)))
              for field in fields if field not in skipped}
    return {field: seeds for field, seeds in values.items() if len(seeds) > 1}


def _seeds_by(runs: Sequence[Run], key: Callable[[Run], str]) -> dict[str, list[int]]:
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(key(run), []).append(run.seed)
    return seeds


def _listed(groups: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))})"
                     for name, seeds in groups.items())
