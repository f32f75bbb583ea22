"""What Figure 1 draws, as numbers: runs are chosen by what their config says, not by what they are called."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rethinking.config import SETTINGS
from rethinking.report import paper
from rethinking.report.collect import Run, differing, number


class DataSet(NamedTuple):
    """What a figure is drawn for."""

    name: str
    num_train: int  # 0: all of it

    def __str__(self) -> str:
        return f"{self.name}, {self.num_train} training examples" if self.num_train else self.name


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean and extremes over seeds of a quantity at each step."""

    steps: Float[np.ndarray, " steps"]
    mean: Float[np.ndarray, " steps"]  # nan where a seed has no finite value
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]
    seeds: int


@dataclasses.dataclass(frozen=True)
class Point:
    """Mean and extremes over seeds of a quantity at one corruption p; None if it cannot be said."""

    p: float
    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    fitted: int  # how many of the seeds fitted their training set


def plain(runs: Iterable[Run]) -> list[Run]:
    """The runs without an explicit regularizer: no weight decay and no augmentation."""
    return [run for run in runs if not run.settings.get("weight_decay")
            and not any(value for field, value in run.settings.items() if field.startswith("augment."))]


def by_data_set(runs: Iterable[Run]) -> dict[DataSet, list[Run]]:
    """Runs grouped by the training set they share."""
    return _grouped(runs, lambda run: DataSet(str(run.settings.get("data.name")),
                                              int(number(run.settings.get("data.num_train")) or 0)))


def by_model(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs grouped by network, in the paper's order and then by name."""
    order = list(paper.MODEL_TITLES)
    groups = _grouped(runs, lambda run: str(run.settings.get("model.name")))
    return dict(sorted(groups.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def by_setting(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each of section 2.1's five settings, in the order of Figure 1a; others are left out."""
    groups = _grouped(runs, lambda run: (number(run.settings.get("randomize.labels", 0.0)),
                                         str(run.settings.get("randomize.pixels", "none"))))
    keys = {name: (fields.get("labels", 0.0), fields.get("pixels", "none")) for name, fields in SETTINGS.items()}
    return {name: groups[key] for name, key in keys.items() if key in groups}


def by_corruption(runs: Iterable[Run]) -> dict[float, list[Run]]:
    """Runs on true pixels grouped by the probability p with which labels are corrupted: 0 true, 1 random labels."""
    there = [run for run in runs if run.settings.get("randomize.pixels", "none") == "none"
             and number(run.settings.get("randomize.labels", 0.0)) is not None]
    return dict(sorted(_grouped(there, lambda run: round(float(run.settings.get("randomize.labels", 0.0)), 6)).items()))


def learning_curve(runs: Sequence[Run], field: str = "train_loss") -> Curve | None:
    """`field` of metrics.jsonl against step, at the steps that all `runs` have reached; None if there are none.

    Complete runs only, if there are any; else the unfinished ones. Diverged runs are left out.
    """
    chosen = [run for run in runs if run.status == "complete"] or [run for run in runs if run.status == "unfinished"]
    series = [{step: value for line in run.metrics if (step := number(line.get("step"))) is not None
               for value in [number(line.get(field))]} for run in chosen]
    series = [values for values in series if values]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    if not steps:
        return None
    values = np.array([[one[step] for step in steps] for one in series], dtype=float)  # None becomes nan
    return Curve(np.array(steps), values.mean(0), values.min(0), values.max(0), len(series))


def relative_times(runs: Sequence[Run]) -> list[Point]:
    """Figure 1b for one network: steps to fit divided by the mean steps to fit true labels, at every p.

    A p at which some seed did not fit has no mean. Empty if there is no reference: no fitted run on true labels.
    """
    groups = by_corruption(_ended(runs))
    reference = [run.value("fit_step") for run in groups.get(0.0, [])]
    if not reference or not all(reference):
        return []
    unit = float(np.mean(reference))
    return [_point(p, [None if (step := run.value("fit_step")) is None else step / unit for run in group], group)
            for p, group in groups.items()]


def final_errors(runs: Sequence[Run]) -> list[Point]:
    """Figure 1c for one network: the final test error in [0, 1] at every p. A diverged seed leaves p without a mean."""
    return [_point(p, [None if (value := run.value("test_accuracy")) is None else 1 - value for run in group], group)
            for p, group in by_corruption(_ended(runs)).items()]


def on_grid(points: Sequence[Point], grid: Iterable[float]) -> list[Point]:
    """`points` with an empty one at each p of `grid` that they lack, so that a line drawn through them breaks there."""
    there = {point.p: point for point in points}
    return [there.get(p, Point(p, None, None, None, 0, 0)) for p in sorted({*there, *grid})]


def mixed_settings(runs: Sequence[Run]) -> str:
    """A sentence on the settings other than model and randomization that vary among `runs`; empty if none does."""
    fields = differing(runs, ("model.name", "learning_rate", "randomize.labels", "randomize.pixels"))
    rates = [name for name, group in by_model(runs).items() if "learning_rate" in differing(group)]
    listed = [f"{field} ({' or '.join(values)})" for field, values in fields.items()]
    listed += [f"learning_rate of {name}" for name in rates]
    return f"These runs differ in more than network and randomization: {', '.join(listed)}." if listed else ""


def _ended(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.status != "unfinished"]


def _point(p: float, values: list[float | None], runs: list[Run]) -> Point:
    fitted = sum(run.status == "complete" and run.value("fit_step") is not None for run in runs)
    if None in values:
        return Point(p, None, None, None, len(runs), fitted)
    return Point(p, float(np.mean(values)), min(values), max(values), len(runs), fitted)


def _grouped(runs: Iterable[Run], key: Callable) -> dict:
    groups = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups
