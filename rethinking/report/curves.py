"""What figures consist of: curves of runs, their means over seeds, and how runs are chosen.

Runs are chosen by their config, not by their name, unless a figure shows one experiment's rows.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rethinking.report import paper
from rethinking.report.collect import grouped
from rethinking.report.paper import DataSet
from rethinking.report.run import Run, number
from rethinking.report.settings import differing
from rethinking.rows import SETTINGS

# The settings that randomize a training set.
RANDOMIZED = ("randomize.labels", "randomize.pixels")


@dataclasses.dataclass(frozen=True)
class Trace:
    """The points that one run, or one part of it, adds to a series."""

    label: str  # "seed 0"
    status: str  # of the run
    x: Float[np.ndarray, " points"]  # ascending
    y: Float[np.ndarray, " points"]  # nan: measured, but not a number
    fitted: bool = True  # whether the run fitted its training set


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a panel: one experiment with several seeds."""

    name: str
    style: int  # which of the colours, dashes and markers
    traces: list[Trace]
    shade_best: bool = False  # shade the area between the line and the best value so far


@dataclasses.dataclass(frozen=True)
class Panel:
    """A pair of axes."""

    title: str
    y_title: str
    series: list[Series]
    percent: bool = False  # y is a fraction, shown from 0 to 100%
    y_max: float = math.inf  # where the axis ends if lines go beyond
    references: Mapping[str, float] = dataclasses.field(default_factory=dict)  # horizontal lines


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels with a common x."""

    name: str  # of its files
    title: str
    short: str  # a title for links
    x_title: str
    panels: list[Panel]
    caption: str
    revisions: Sequence[str] = ()  # of the code, if the runs have several
    scattered: bool = False  # each trace has its own points: error bars instead of bands
    no_mean: str = ""  # if scattered: what it means that an x has traces but no mean
    log_x: bool = False
    is_curves: bool = False  # learning curves of an experiment, which the page folds


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean and extremes of a series' traces at each x; nan where one of them has no number."""

    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    num: Int[np.ndarray, " points"]  # traces
    fitted: Int[np.ndarray, " points"]  # traces whose run fitted its training set


def summary(series: Series, scattered: bool = False) -> Curve:
    """The series' mean at every x that all its traces have, or, if `scattered`, that any has.

    Only complete runs count, or unfinished ones if none is complete. If `scattered`, diverged runs
    count too: their x has no mean.
    """
    traces = series.traces if scattered else counted(series.traces)
    if not traces:
        empty = np.array([])
        return Curve(empty, empty, empty, empty, empty.astype(int), empty.astype(int))
    x = np.concatenate([trace.x for trace in traces])
    y = np.concatenate([trace.y for trace in traces])
    fitted = np.concatenate([np.full(len(trace.x), int(trace.fitted)) for trace in traces])
    order = np.argsort(x, kind="stable")
    kept, starts, num = np.unique(x[order], return_index=True, return_counts=True)
    mean = np.add.reduceat(y[order], starts) / num
    low = np.minimum.reduceat(y[order], starts)
    high = np.maximum.reduceat(y[order], starts)
    num_fitted = np.add.reduceat(fitted[order], starts)
    shown = (num == len(traces)) | scattered
    return Curve(*(column[shown] for column in (kept, mean, low, high, num, num_fitted)))


def counted(traces: Sequence[Trace]) -> list[Trace]:
    """The traces whose mean is taken: of complete runs, or else of unfinished ones."""
    for status in ("complete", "unfinished"):
        found = [trace for trace in traces if trace.status == status]
        if found:
            return found
    return []


def trace(
    run: Run, points: Mapping[float, float | None], detail: str = "", fitted: bool = True
) -> Trace:
    """The trace of a run through `points`, x -> y; y is None if it is not a number."""
    x = np.array(sorted(points), float)
    y = np.array([points[at] for at in sorted(points)], float)  # None becomes nan
    return Trace(f"seed {run.seed}{detail}", run.status, x, y, fitted)


def measured(
    lines: Iterable[Mapping[str, Any]], field: str, x: str = "step"
) -> dict[float, float | None]:
    """x -> `field` over the lines of metrics.jsonl that have both."""
    found = {}
    for line in lines:
        at = number(line.get(x))
        if field in line and at is not None:
            found[at] = number(line[field])
    return found


def make_series(groups: Mapping[str, Sequence[Run]], traces: Callable) -> list[Series]:
    """A series of each group, made of what `traces` returns for a run, without empty ones.

    A group keeps its style when others are empty.
    """
    found = []
    for style, (name, runs) in enumerate(groups.items()):
        points = [one for run in runs for one in traces(run) if len(one.x)]
        if counted(points):
            found.append(Series(name, style, points))
    return found


def learning_curves(groups: Mapping[str, Sequence[Run]], field: str = "train_loss") -> list[Series]:
    """`field` against step; a series for each group of runs."""
    return make_series(groups, lambda run: [trace(run, measured(run.metrics, field))])


def plain(runs: Iterable[Run]) -> list[Run]:
    """The trainings that change nothing but their data: no weight decay, no augmentation.

    Rows of figure_async are left out, because all of them have another learning rate.
    """
    return [run for run in runs if run.kind == "training" and _is_plain(run)]


def _is_plain(run: Run) -> bool:
    fields = run.settings.items()
    augmented = any(value for field, value in fields if field.startswith("augment."))
    if augmented or run.settings.get("weight_decay") or workers(run) > 1:
        return False
    return run.experiment != "figure_async"


def workers(run: Run) -> int:
    """How many asynchronous workers the run imitates; 1 for ordinary training."""
    return int(run.settings.get("workers", 1))


def by_data_set(runs: Iterable[Run], size: int | None = None) -> dict[DataSet, list[Run]]:
    """Runs by training set, CIFAR10 first; with `size`, as if all sets had this size."""

    def data(run: Run) -> DataSet:
        return run.data if size is None else run.data._replace(num_train=size)

    groups = grouped(runs, data)
    return {key: groups[key] for key in sorted(groups, key=lambda key: (key != paper.CIFAR10, key))}


def by_model(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by network, in the paper's order and then by name."""
    order = [*paper.MODEL_TITLES]
    groups = grouped(runs, lambda run: run.model)

    def place(name: str) -> tuple[int, str]:
        return (order.index(name) if name in order else len(order)), name

    return {name: groups[name] for name in sorted(groups, key=place)}


def by_setting(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of section 2.1's five settings, in the order of Figure 1a."""
    groups = grouped(runs, lambda run: (run.labels, run.pixels))
    found = {}
    for name, fields in SETTINGS.items():
        key = fields.get("labels", 0.0), fields.get("pixels", "none")
        if key in groups:
            found[name] = groups[key]
    return found


def by_corruption(runs: Iterable[Run]) -> dict[float, list[Run]]:
    """Runs on true pixels by the probability p of a corrupted label: 0 true, 1 random labels."""
    there = [run for run in runs if run.pixels == "none" and run.labels is not None]
    return dict(sorted(grouped(there, lambda run: round(run.labels, 6)).items()))


def mixed_settings(runs: Sequence[Run], ignored: Sequence[str]) -> str:
    """A sentence on what differs among `runs` beside `ignored`; empty if nothing does.

    The learning rate may differ between networks, as it does in the paper.
    """
    fields = differing(runs, (*ignored, "learning_rate"))
    texts = []
    for field, values in fields.items():
        if f"{field.partition('.')[0]}.*" not in ignored:
            texts.append(f"{field} ({' or '.join(values)})")
    for name, group in by_model(runs).items():
        if "learning_rate" in differing(group):
            texts.append(f"learning_rate of {paper.title(name)}")
    return f"These runs differ in other settings too: {', '.join(texts)}." if texts else ""
