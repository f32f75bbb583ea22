"""Run directories as values: reading them, whatever state they are in, and grouping them into rows."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rethinking import config as fields
from rethinking import experiments
from rethinking.errors import InputError
from rethinking.report import catalog, paper
from rethinking.report.catalog import DataSet
from rethinking.runs import read_lines

_LOG = logging.getLogger(__name__)
STATUSES = ("complete", "diverged", "unfinished")
MEASURED = ("training", "complexity")  # kinds of experiments that write metrics.jsonl on their way
FILES = ("config.json", "metrics.jsonl", "result.json")


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
    def data(self) -> DataSet:
        """The training set."""
        return DataSet(str(self.settings.get("data.name")), int(number(self.settings.get("data.num_train")) or 0))

    @property
    def revision(self) -> str:
        """The code it was made with, as result.json says; of an unfinished run it is not known."""
        return str(self.result.get("revision")) if self.result else "unknown"

    @property
    def key(self) -> tuple:
        """Equal for two runs exactly when they are the same experiment with the same seeds."""
        return self.digest, self.seed, experiments.scientific(self.settings).get("randomize.seed")

    def value(self, field: str) -> float | None:
        """A number of result.json; None where there is none."""
        return number((self.result or {}).get(field))

    @property
    def shifts(self) -> list[str]:
        """The names of the shifted test sets that it was evaluated on; `value("shifts.NAME")` is the accuracy."""
        prefix = "shifts."
        return [field.removeprefix(prefix) for field in self.result or {} if field.startswith(prefix)]

    @property
    def fit_epoch(self) -> float | None:
        """The number of epochs after which the training set was fitted; None if it never was."""
        step, steps, epochs = (self.value(field) for field in ("fit_step", "steps", "epochs"))
        return step * epochs / steps if step is not None and steps and epochs else None


@dataclasses.dataclass(frozen=True)
class Collection:
    """Every run found, each experiment once per seed, and what is to be said about those left out."""

    runs: list[Run]
    digests: dict[str, set[str]]  # row -> the configs of its runs, also where another row's run stands for it
    broken: list[str]
    repeated: list[str]

    def of_row(self, row: str) -> list[Run]:
        """The runs of a row: those that bear its name, and those of the same config that were made for another row."""
        digests = self.digests.get(row, set())
        return sorted((run for run in self.runs if run.digest in digests), key=lambda run: run.seed)


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
    """Reads every run directory (a folder with one of FILES) at or below `folders`.

    A run that cannot be read is named in a warning and left out. Of runs with equal config and seeds one is kept, the
    one that got furthest. Raises InputError if one of `folders` is no folder.
    """
    found, broken = [], []
    for path in _find(folders):
        try:
            found.append(read(path))
        except (ValueError, OSError) as error:  # JSON's and UTF-8's errors are ValueErrors
            broken.append(printable(f"{path}: {error}"))
            _LOG.warning("left out %s", broken[-1])
    kept, repeated = {}, []
    for run in sorted(found, key=lambda run: (STATUSES.index(run.status), -len(run.metrics))):
        first = kept.setdefault(run.key, run)
        if first is not run:
            repeated.append(printable(f"{run.path} ({run.status}) repeats {first.path} ({first.status})"))
    return Collection([run for run in found if kept[run.key] is run], _digests(found), broken, repeated)


def _digests(runs: Sequence[Run]) -> dict[str, set[str]]:
    """`Collection.digests`: of the rows that were run, and, once for each config, of those of configs/ that the runs of
    other experiments stand for."""
    digests: dict[str, set[str]] = {}
    named = set()  # (experiment, digest)
    for run in runs:
        digests.setdefault(run.row, set()).add(run.digest)
        named.add((run.row.partition(":")[0], run.digest))
    there = {digest for _, digest in named}
    for experiment in sorted({*paper.TABLES, *(experiment for experiment, _ in named)}):
        for row, digest in catalog.digests(experiment).items():
            if digest in there and (experiment, digest) not in named:
                digests.setdefault(row, set()).add(digest)
                named.add((experiment, digest))
    return digests


def state(folders: Sequence[str | os.PathLike]) -> dict[pathlib.Path, tuple[int, int]]:
    """When each file of the run directories was last written, and its size: it differs if anything has changed.

    Raises InputError if one of `folders` is no folder.
    """
    found = {}
    for file in (path / name for path in _find(folders) for name in FILES):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            found[file] = status.st_mtime_ns, status.st_size
    return found


def slug(name: str) -> str:
    """`name` as part of a file name; one that has to be changed for that gets a hash, so that it stays unique."""
    cleaned = re.sub(r"[^\w.-]", "_", name)[:80]
    return cleaned if cleaned == name else f"{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def printable(text: str) -> str:
    """`text` on one line, with a blank for every sign that cannot be printed."""
    return "".join(char if char.isprintable() else " " for char in text)


def _find(folders: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    paths = {}  # by resolved path, since folders may overlap
    for folder in folders:
        if "://" in os.fspath(folder):
            raise InputError(f"--runs={folder}: runs are read from this machine. Copy them: gcloud storage cp "
                              f"--recursive {folder} runs")
        if not pathlib.Path(folder).is_dir():
            raise InputError(f"--runs={folder}: no such folder. Name one that holds run directories.")
        for place, subfolders, files in os.walk(folder):
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints")
            if not {*FILES}.isdisjoint(files):
                paths.setdefault(pathlib.Path(place).resolve(), pathlib.Path(place))
    return list(paths.values())


def read(path: pathlib.Path) -> Run:
    """Reads one run directory; raises ValueError, with the reason, or OSError if it cannot be read."""
    if not (path / "config.json").exists():
        raise ValueError("no config.json beside its other files")
    config = _json_object(path / "config.json")
    settings = {printable(field): printable(value) if isinstance(value, str) else value
                for field, value in fields.flat(config).items()}
    if not isinstance(settings.get("row"), str) or type(settings.get("seed")) is not int:
        raise ValueError("config.json is not that of a run: no row or no seed")
    if settings.get("kind", "training") not in experiments.KINDS:
        raise ValueError(f"config.json is of an unknown kind: {settings['kind']!r}")
    result = _json_object(path / "result.json") if (path / "result.json").exists() else None
    if result is not None and result.get("status") not in ("complete", "diverged"):
        raise ValueError(f"result.json has status {result.get('status')!r}, not complete or diverged")
    if result is not None:
        result |= _flat_shifts(result.pop("shifts", {}))
    metrics = read_lines(path / "metrics.jsonl")
    if result is not None and not metrics and settings.get("kind", "training") in MEASURED:
        raise ValueError("result.json says that it ended, but metrics.jsonl is empty or missing")
    digest = (result or {}).get("config_digest") or experiments.digest(config)
    return Run(path, settings, metrics, result, str(digest))


def _flat_shifts(shifts: Any) -> dict[str, Any]:
    """result.json's {"noise=1": {"accuracy": ...}} as {"shifts.noise=1": ...}; nothing of what isn't of that form."""
    if not isinstance(shifts, dict):
        return {}
    return {f"shifts.{name}": measured.get("accuracy")
            for name, measured in shifts.items() if isinstance(measured, dict)}


def _json_object(file: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON (cut short?): {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return value
