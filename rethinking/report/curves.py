"""What figures are made of: the curves that runs add to them, their means over seeds, and how runs are grouped.

Runs are chosen by what their config says, not by what they are called, unless a figure is of one experiment's rows.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rethinking.report import paper
from rethinking.report.catalog import DataSet
from rethinking.report.collect import Run, number, slug
from rethinking.report.differences import differing
from rethinking.rows import SETTINGS

CIFAR10 = DataSet("cifar10", 0)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one run, or one part of it, adds to a series."""

    label: str  # "seed 0"
    seed: int
    status: str  # of the run
    x: Float[np.ndarray, " points"]  # ascending
    y: Float[np.ndarray, " points"]  # nan: measured, but no number
    fitted: bool = True  # whether the run fitted its training set


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a panel: the same experiment with several seeds."""

    name: str
    style: int  # which of the colours, dashes and markers
    traces: list[Trace]
    shade_best: bool = False  # shade what lies between the line and the best so far


@dataclasses.dataclass(frozen=True)
class Panel:
    """A pair of axes."""

    title: str
    y_title: str
    series: list[Series]
    percent: bool = False  # y is a fraction, shown from 0 to 100%
    y_max: float = math.inf  # where the axis ends if lines go beyond
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)  # horizontal lines: label -> y


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels with a common x, or, without panels, what is missing for them."""

    name: str  # of its files
    title: str
    x_title: str
    panels: list[Panel]
    caption: str
    missing: list[str]
    scattered: bool = False  # each trace has points of its own, drawn with error bars, and not all the x of the others
    no_mean: str = ""  # if scattered: what it means that an x has traces but no mean
    log_x: bool = False
    log_y: bool = False


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean and extremes over the traces of a series at each x; nan where one of them has no number."""

    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    num: Int[np.ndarray, " points"]  # traces
    fitted: Int[np.ndarray, " points"]  # traces whose run fitted its training set


def summary(series: Series, scattered: bool = False) -> Curve:
    """The series' mean at every x that all its traces have, or, if `scattered`, that any of them has.

    Of complete runs only, if there are any; else of the unfinished ones. If `scattered`, a diverged run counts as well,
    so that its x has no mean.
    """
    traces = series.traces if scattered else counted(series.traces)
    if not traces:
        return Curve(*(np.array([]) for _ in range(4)), *(np.array([], int) for _ in range(2)))
    x, y = (np.concatenate([getattr(trace, name) for trace in traces]) for name in "xy")
    fitted = np.concatenate([np.full(len(trace.x), int(trace.fitted)) for trace in traces])
    order = np.argsort(x, kind="stable")
    kept, starts, num = np.unique(x[order], return_index=True, return_counts=True)
    mean, low, high = (function.reduceat(y[order], starts) for function in (np.add, np.minimum, np.maximum))
    columns = (kept, mean / num, low, high, num, np.add.reduceat(fitted[order], starts))
    shown = (num == len(traces)) | scattered
    return Curve(*(column[shown] for column in columns))


def counted(traces: Sequence[Trace]) -> list[Trace]:
    """The traces whose mean is taken: of complete runs, if there are any, else of unfinished ones."""
    return next((found for status in ("complete", "unfinished")
                 if (found := [trace for trace in traces if trace.status == status])), [])


def trace(run: Run, points: Mapping[float, float | None], detail: str = "", fitted: bool = True) -> Trace:
    """The trace of a run through `points`, x -> y; None for what has been measured but is no number."""
    ordered = sorted(points.items())
    x, y = (np.array([point[i] for point in ordered], float) for i in (0, 1))  # None becomes nan
    return Trace(f"seed {run.seed}{detail}", run.seed, run.status, x, y, fitted)


def measured(lines: Iterable[Mapping[str, Any]], field: str, x: str = "step") -> dict[float, float | None]:
    """x -> `field` over the lines of metrics.jsonl that have both."""
    return {at: number(line[field]) for line in lines if field in line and (at := number(line.get(x))) is not None}


def parts(run: Run, field: str) -> dict[int, list[dict[str, Any]]]:
    """The lines of metrics.jsonl by the whole number they have in `field`; others are left out."""
    groups = grouped(run.metrics, lambda line: number(line.get(field)))
    return {int(value): groups[value] for value in sorted(groups.keys() - {None})}


def learning_curves(name: str, style: int, runs: Iterable[Run], field: str = "train_loss", shade_best: bool = False,
                    ) -> Series | None:  # fmt: skip
    """`field` against step for all `runs`, diverged ones included; None if none of them counts."""
    found = [(run, measured(run.metrics, field)) for run in runs]
    series = Series(name, style, [trace(run, points) for run, points in found if points], shade_best)
    return series if counted(series.traces) else None


def plain(runs: Iterable[Run]) -> list[Run]:
    """The trainings with nothing but their data changed: no weight decay, no augmentation, and none of figure_async,
    whose rows have another learning rate even where no gradient comes late."""
    return [run for run in runs if run.kind == "training" and not run.settings.get("weight_decay") and workers(run) == 1
            and run.row.partition(":")[0] != "figure_async"
            and not any(value for field, value in run.settings.items() if field.startswith("augment."))]


def by_data_set(runs: Iterable[Run], papers: DataSet) -> list[tuple[DataSet, list[Run]]]:
    """Runs grouped by the training set they share; the paper's without a run, if there are none at all."""
    return list((grouped(runs, lambda run: run.data) or {papers: []}).items())


def by_model(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs grouped by network, in the paper's order and then by name."""
    order = list(paper.MODEL_TITLES)
    groups = grouped(runs, lambda run: str(run.settings.get("model.name")))
    return dict(sorted(groups.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def by_setting(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each of section 2.1's five settings, in the order of Figure 1a; others are left out."""
    groups = grouped(runs, lambda run: (number(run.settings.get("randomize.labels", 0.0)),
                                        str(run.settings.get("randomize.pixels", "none"))))
    keys = {name: (fields.get("labels", 0.0), fields.get("pixels", "none")) for name, fields in SETTINGS.items()}
    return {name: groups[key] for name, key in keys.items() if key in groups}


def by_corruption(runs: Iterable[Run]) -> dict[float, list[Run]]:
    """Runs on true pixels grouped by the probability p with which labels are corrupted: 0 true, 1 random labels."""
    there = [run for run in runs if run.settings.get("randomize.pixels", "none") == "none"
             and number(run.settings.get("randomize.labels", 0.0)) is not None]
    return dict(sorted(grouped(there, lambda run: round(float(run.settings.get("randomize.labels", 0.0)), 6)).items()))


def relative_times(runs: Sequence[Run]) -> list[Trace]:
    """Figure 1b for one network: for each run, p and its steps to fit divided by the mean steps to fit true labels.

    nan for a run that did not fit. Empty if there is no reference: no run on true labels, or one that did not fit.
    """
    groups = by_corruption(_ended(runs))
    reference = [run.value("fit_step") for run in groups.get(0.0, [])]
    if not reference or not all(reference):
        return []
    unit = float(np.mean(reference))
    return [trace(run, {p: run.value("fit_step") / unit if _fitted(run) else None}, fitted=_fitted(run))
            for p, group in groups.items() for run in group]


def final_errors(runs: Sequence[Run]) -> list[Trace]:
    """Figure 1c for one network: for each run, p and the final test error in [0, 1]; nan for a diverged one."""
    def error(run: Run) -> float | None:
        # A diverged one has an accuracy, too: of logits that are no numbers the first class is the largest.
        accuracy = run.value("test_accuracy") if run.status == "complete" else None
        return None if accuracy is None else 1 - accuracy

    return [trace(run, {p: error(run)}, fitted=_fitted(run))
            for p, group in by_corruption(_ended(runs)).items() for run in group]


def mixed_settings(runs: Sequence[Run], ignored: Sequence[str] = ("model.name", "randomize.labels", "randomize.pixels"),
                   ) -> str:  # fmt: skip
    """Sentences on what varies among `runs` beside the `ignored` settings: other settings, and the code's revision.

    The learning rate may differ between networks, as it does in the paper. Empty if nothing varies.
    """
    fields = differing(runs, (*ignored, "learning_rate"))
    rates = [name for name, group in by_model(runs).items() if "learning_rate" in differing(group)]
    listed = [f"{field} ({' or '.join(values)})" for field, values in fields.items()]
    listed += [f"learning_rate of {paper.title(name)}" for name in rates]
    revisions = sorted({run.revision for run in runs if run.result})
    return " ".join([f"These runs differ in other settings too: {', '.join(listed)}."] * bool(listed)
                    + [f"The runs were made with different revisions of the code: {', '.join(revisions)}."]
                    * (len(revisions) > 1))


def grouped(values: Iterable, key: Callable) -> dict:
    """Values by key, in the order in which the keys appear."""
    groups = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def on_data(key: str, title: str, data: DataSet, x_title: str, panels: list[Panel], caption: Iterable[str],
            missing: list[str], **more: Any) -> Figure:  # fmt: skip
    """A figure for one data set; `caption` as sentences, of which some may be empty. "1a" makes it figure_1a_cifar10,
    and a subset of the data has its size in the name."""
    name = f"figure_{key}_{slug(data.name)}" + f"_{data.num_train}" * (data.num_train > 0)
    return Figure(name, f"{title}, {data}", x_title, panels, " ".join(filter(None, caption)), missing, **more)


def workers(run: Run) -> int:
    """How many asynchronous workers the run imitates; 1 for ordinary training."""
    return int(run.settings.get("workers", 1))


def _fitted(run: Run) -> bool:
    return run.status == "complete" and run.value("fit_step") is not None


def _ended(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.status != "unfinished"]
