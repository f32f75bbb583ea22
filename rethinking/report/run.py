"""One run directory as a value: `read` reads it in whatever state it is."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from rethinking import experiments
from rethinking.config import flat
from rethinking.report import kinds, paper
from rethinking.report.paper import DataSet
from rethinking.runs import read_lines

STATUSES = ("complete", "diverged", "unfinished")


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


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None. JSON's true and false are not."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def printable(text: str) -> str:
    """`text` on one line, with a blank for every character that cannot be printed."""
    return "".join(char if char.isprintable() else " " for char in text)


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
    if result is not None and not metrics and kinds.KINDS[kind].has_metrics:
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
