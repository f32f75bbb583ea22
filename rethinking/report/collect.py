"""Run directories as values: reading them in whatever state they are, and grouping them by row."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rethinking import experiments, rows
from rethinking.config import flat
from rethinking.errors import InputError
from rethinking.report import kinds, paper
from rethinking.report.paper import DataSet
from rethinking.runs import read_lines

_LOG = logging.getLogger(__name__)
STATUSES = ("complete", "diverged", "unfinished")
FILES = ("config.json", "metrics.jsonl", "result.json")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory."""

    path: pathlib.Path
    settings: dict[str, Any]  # the config, flat: "data.name" -> "cifar10"
    metrics: list[dict[str, Any]]  # in order, up to the first line that cannot be read
    result: dict[str, Any] | None
    digest: str  # equal for runs that differ only in their seeds

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
    def experiment(self) -> str:
        """The first part of `row`."""
        return self.row.partition(":")[0]

    @property
    def kind(self) -> str:
        """The kind of experiment, a key of `rethinking.experiments.KINDS`."""
        return self.settings.get("kind", "training")

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def model(self) -> str:
        """The network's name in the config."""
        return str(self.settings.get("model.name"))

    @property
    def labels(self) -> float | None:
        """The probability with which a training label is corrupted; None if it is not a number."""
        return number(self.settings.get("randomize.labels", 0.0))

    @property
    def pixels(self) -> str:
        """How pixels are randomized; "none" if they are not."""
        return str(self.settings.get("randomize.pixels", "none"))

    @property
    def data(self) -> DataSet:
        """The training set."""
        size = number(self.settings.get("data.num_train")) or 0
        return DataSet(str(self.settings.get("data.name")), int(size))

    @property
    def revision(self) -> str:
        """The revision of the code in result.json; "unknown" for an unfinished run."""
        return str(self.result.get("revision")) if self.result else "unknown"

    @property
    def key(self) -> tuple:
        """Equal for two runs exactly when they are the same experiment with the same seeds."""
        return self.digest, self.seed, experiments.scientific(self.settings).get("randomize.seed")

    def value(self, field: str) -> float | None:
        """A number of result.json, or None. "fit_epoch" is computed from others."""
        if field == "fit_epoch":
            return self._fit_epoch()
        return number((self.result or {}).get(field))

    @property
    def shifts(self) -> list[str]:
        """The names of the shifted test sets; `value("shifts.NAME")` is the accuracy on one."""
        fields = self.result or {}
        return [name.removeprefix("shifts.") for name in fields if name.startswith("shifts.")]

    @property
    def solutions(self) -> dict[str, "Run"]:
        """The solutions of a linear system, each as a run with its own numbers: name -> run.

        "sgd_distance" is the last distance between SGD and the solution that it approaches.
        """
        found = {}
        for name, numbers in (self.result or {}).get("solutions", {}).items():
            found[name] = dataclasses.replace(self, result=self.result | numbers)
        return found

    def _fit_epoch(self) -> float | None:
        """The number of epochs until the training set is fitted; None if it never is."""
        step, steps, epochs = map(self.value, ("fit_step", "steps", "epochs"))
        return step * epochs / steps if step is not None and steps and epochs else None


@dataclasses.dataclass(frozen=True)
class Collection:
    """Every run found, each experiment once per seed, and what was left out."""

    runs: list[Run]
    digests: dict[str, set[str]]  # row -> the digests of its runs, see `_digests`
    broken: list[str]
    repeated: list[str]

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


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None. JSON's true and false are not."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def grouped(values: Iterable, key: Callable) -> dict:
    """Values by key, in the order in which the keys appear."""
    groups = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def collect(folders: Sequence[str | os.PathLike]) -> Collection:
    """Reads every run directory (a folder with one of FILES) at or below `folders`.

    A warning names each run that cannot be read. Of runs with equal config and seeds, the one that
    got furthest is kept. Raises InputError if one of `folders` is not a folder.
    """
    found, broken, repeated = [], [], []
    for path in _find(folders):
        try:
            found.append(read(path))
        except (ValueError, OSError) as error:  # JSON's and UTF-8's errors are ValueErrors
            broken.append(printable(f"{path}: {error}"))
            _LOG.warning("left out %s", broken[-1])
    kept = {}
    for run in sorted(found, key=lambda run: (STATUSES.index(run.status), -len(run.metrics))):
        first = kept.setdefault(run.key, run)
        if first is not run:
            text = f"{run.path} ({run.status}) repeats {first.path} ({first.status})"
            repeated.append(printable(text))
    runs = [run for run in found if kept[run.key] is run]
    return Collection(runs, _digests(found), broken, repeated)


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
    names = rows.EXPERIMENTS[experiment].rows
    return {
        f"{experiment}:{row}": experiments.digest(row_settings(experiment, row)) for row in names
    }


def state(folders: Sequence[str | os.PathLike]) -> dict[pathlib.Path, tuple[int, int]]:
    """When each file of the run directories was last written, and its size.

    Two states differ if anything has changed.
    Raises InputError if one of `folders` is not a folder.
    """
    found = {}
    for path in _find(folders):
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                status = (path / name).stat()
                found[path / name] = status.st_mtime_ns, status.st_size
    return found


def slug(name: str) -> str:
    """`name` as part of a file name. A changed one gets a hash, so that names stay different."""
    cleaned = re.sub(r"[^\w.-]", "_", name)[:80]
    if cleaned == name:
        return name
    return f"{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def printable(text: str) -> str:
    """`text` on one line, with a blank for every character that cannot be printed."""
    return "".join(char if char.isprintable() else " " for char in text)


def _find(folders: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    paths = {}  # by resolved path, since folders may overlap
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
        for place, subfolders, files in os.walk(folder):
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints")
            if not {*FILES}.isdisjoint(files):
                paths.setdefault(pathlib.Path(place).resolve(), pathlib.Path(place))
    return list(paths.values())


def read(path: pathlib.Path) -> Run:
    """One run directory. Raises ValueError with the reason, or OSError, if it cannot be read."""
    if not (path / "config.json").exists():
        raise ValueError("no config.json beside its other files")
    config = _json_object(path / "config.json")
    settings = {}
    for field, value in flat(config).items():
        settings[printable(field)] = printable(value) if isinstance(value, str) else value
    if not isinstance(settings.get("row"), str) or type(settings.get("seed")) is not int:
        raise ValueError("config.json is not that of a run: it has no row or no seed")
    kind = settings.get("kind", "training")
    if kind not in experiments.KINDS:
        raise ValueError(f"config.json has an unknown kind: {kind!r}")
    result = _read_result(path / "result.json")
    metrics = read_lines(path / "metrics.jsonl")
    if result is not None and not metrics and kinds.of(kind).has_metrics:
        raise ValueError("the run has ended, but metrics.jsonl is empty or missing")
    digest = (result or {}).get("config_digest") or experiments.digest(config)
    return Run(path, settings, metrics, result, str(digest))


def _read_result(file: pathlib.Path) -> dict[str, Any] | None:
    """result.json with its nested numbers in the form that `Run` uses.

    {"shifts": {"noise=1": {"accuracy": ...}}} becomes {"shifts.noise=1": ...}.
    """
    if not file.exists():
        return None
    result = _json_object(file)
    if result.get("status") not in ("complete", "diverged"):
        raise ValueError(f"result.json has status {result.get('status')!r}")
    shifts = result.pop("shifts", {})
    for name, measured in shifts.items() if isinstance(shifts, dict) else ():
        if isinstance(measured, dict):
            result[f"shifts.{name}"] = measured.get("accuracy")
    if "solutions" in result:
        result["solutions"] = _solutions(result)
    return result


def _solutions(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of each solution by its name; see `rethinking.experiments.linear`."""
    last = {}  # the last line of SGD from each start
    try:
        for line in result.get("sgd", []):
            last[line["start"]] = line["distance"]
        solutions = {printable(numbers["name"]): numbers for numbers in result["solutions"]}
        for name, numbers in solutions.items():
            solutions[name] = numbers | {"sgd_distance": last.get(paper.SGD_STARTS.get(name))}
    except (TypeError, KeyError) as error:
        raise ValueError(f"result.json has unreadable solutions: {error!r}") from error
    return solutions


def _json_object(file: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON (cut short?): {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return value
