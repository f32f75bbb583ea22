"""One run directory as a value: `read` reads it in whatever state it is."""

import dataclasses
import functools
import pathlib
from typing import Any

from rethinking import experiments
from rethinking.config import flat
from rethinking.report import files, kinds
from rethinking.report.files import number, printable
from rethinking.report.paper import DataSet
from rethinking.runs import json_files

STATUSES = (*json_files.STATUSES, "unfinished")
# JAX's names for the precision of products of float32 numbers, in three groups of synonyms. A
# platform may have fewer than three: a processor has one, and NVIDIA cards have two.
_LOWEST, _MIDDLE = ("default", "bfloat16"), ("high", "tensorfloat32")
_HIGHEST = ("highest", "float32")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory."""

    path: pathlib.Path
    settings: dict[str, Any]  # the config, flat: "data.name" -> "cifar10"
    metrics: list[dict[str, Any]]  # in order, up to the first line that cannot be read
    result: dict[str, Any] | None
    digest: str  # equal for runs that differ only in their seeds
    damage: str = ""  # what is wrong with its files, although they can be read

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
        return printable(str(self.result.get("revision"))) if self.result else "unknown"

    @property
    def products(self) -> str:
        """How the run multiplied float32 numbers: "float32", "tf32", ...; "" if it is not known.

        Results from before this was recorded are known to be exact if they come from a processor.
        """
        result = self.result or {}
        setting = str(result.get("matmul_precision") or "default").lower()
        native = str(result.get("float32_products") or "")
        if not native and str(result.get("device")).startswith("cpu"):
            native = "float32"
        if not native or setting in _LOWEST or (native != "bfloat16" and setting in _MIDDLE):
            return printable(native)
        if setting in _HIGHEST:
            return "float32"
        return printable(setting)

    @property
    def eval_split(self) -> str:
        """The split that a finished run was evaluated on; "" if the result names none."""
        return printable(str((self.result or {}).get("eval_split") or ""))

    @functools.cached_property
    def key(self) -> tuple:
        """Equal for two runs exactly when they are the same experiment with the same seeds."""
        scientific = experiments.scientific(self.settings)
        split = scientific.get("data.eval_split")
        return self.digest, self.seed, scientific.get("randomize.seed"), split

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


def read(path: pathlib.Path) -> Run:
    """One run directory. Raises ValueError with the reason, or OSError, if it cannot be read."""
    config = files.read_config(path / "config.json")
    settings = {}
    for field, value in flat(config).items():
        settings[printable(field)] = printable(value) if isinstance(value, str) else value
    result = files.read_result(path / "result.json")
    metrics, damage = files.read_metrics(path / "metrics.jsonl")
    if result is None and damage.endswith("cut short"):
        damage = ""  # the run was killed, or writes just now
    if result is not None and kinds.KINDS[settings.get("kind", "training")].has_metrics:
        if not metrics:
            raise ValueError("the run has ended, but metrics.jsonl is empty or missing")
        damage = damage or _changed(metrics, result)
    digest = experiments.digest(config)
    if result is not None:
        recorded = result.get("config_digest", digest), result.get("seed", config["seed"])
        if recorded != (digest, config["seed"]):
            raise ValueError("config.json has changed since the run ended: see result.json")
    return Run(path, settings, metrics, result, printable(digest), damage)


def _changed(metrics: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """A sentence if these are not the lines that `result` was made from; else ""."""
    if "metrics_sha256" in result:
        if result["metrics_sha256"] == json_files.digest_of_lines(metrics):
            return ""
        return "metrics.jsonl has changed since the run ended: its lines do not match result.json"
    # A result from before digests: its last line says how far the run got.
    for field, total in (("step", "steps"), ("epoch", "epochs")):
        there, all_of_them = number(metrics[-1].get(field)), number(result.get(total))
        if None not in (there, all_of_them) and there != all_of_them:
            return (
                f"metrics.jsonl ends at {field} {there:,.0f}, but the run has {all_of_them:,.0f} "
                f"{total}: lines are missing"
            )
    return ""
