"""The panels of the figures on sections 2.2, 4 and 5: complexity, Theorem 1, and random filters."""

import math
from collections.abc import Callable, Sequence

from rethinking.report import curves, paper
from rethinking.report.collect import Collection, grouped
from rethinking.report.curves import Panel, Series, Trace
from rethinking.report.paper import DataSet
from rethinking.report.run import Run, number
from rethinking.report.settings import apart

# Fields of metrics.jsonl that `rethinking.theory.complexity` computes.
CLOSED_FORMS = {
    "linear_span": "linear, mean square 1",
    "linear_ball": "linear, unit ball",
    "kernel_ball": "Gaussian kernel, unit ball",
}
CHANGES = {"max_change": "largest change of a loss", "mean_change": "mean change of the losses"}
FILTERS = ("features.num_filters", "features.filters_per_block")


def drawn(collection: Collection) -> list[Run]:
    """The runs whose result has a drawing of Theorem 1's network."""
    return [run for run in collection.runs if run.result and run.result.get("drawing")]


def random_filters(collection: Collection) -> list[Run]:
    """The ended runs on features of random convolutional filters."""
    runs = [run for run in collection.runs if run.status != "unfinished"]
    return [run for run in runs if run.settings.get("features.name") == "random_conv"]


def measured(name: str) -> Callable[[Collection], list[Run]]:
    """A function that chooses the runs of one measure of complexity."""

    def choose(collection: Collection) -> list[Run]:
        runs = [run for run in collection.runs if run.kind == "complexity"]
        return [run for run in runs if run.settings.get("measure") == name]

    return choose


def construction(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Theorem 1's network for a few examples, over the line that they are projected on."""
    run = min(runs, key=lambda run: run.seed)
    drawing = run.result["drawing"]
    network = []
    for is_example in (True, False):
        points = {place["x"]: place["output"] for place in drawing if place["point"] == is_example}
        network.append(curves.trace(run, points, fitted=is_example))
    units = []
    for j, threshold in enumerate(place["x"] for place in drawing if not place["point"]):
        points = {place["x"]: place["units"][j] for place in drawing if place["x"] >= threshold}
        units.append(Series(f"unit {j + 1}", j, [curves.trace(run, points)]))
    return [
        Panel("The network", "output", [Series("solid: examples, hollow: thresholds", 0, network)]),
        Panel("Its hidden units", "max(x - threshold, 0)", units),
    ]


def filters(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Test error of linear models on random convolutional filters against the number of filters."""

    def size_and_ridge(run: Run) -> tuple[int | float, bool]:
        ridge = run.settings.get("choose_ridge") or run.settings.get("ridge")
        return run.data.num_train or math.inf, bool(ridge)

    def points(run: Run) -> list[Trace]:
        count = number(run.settings.get("features.num_filters"))
        return [curves.trace(run, {count: run.value("test_error")})] if count else []

    groups = {}
    for (size, ridge), group in sorted(grouped(runs, size_and_ridge).items()):
        name = "with a ridge" if ridge else "no ridge"
        groups[name if size == math.inf else f"{name}, {size:,} examples"] = group
    lines = []
    for style, (name, group) in enumerate(apart(groups, FILTERS).items()):
        lines.append(Series(name, style, [trace for run in group for trace in points(run)]))
    references = {}
    if data.name == "cifar10":
        for label, row in (("paper", ""), ("paper, with a ridge", "+ridge")):
            published = paper.TABLES["table3"][f"cifar10+random_conv{row}"]["test_error"]
            references[label] = published.percent / 100
    return [Panel("Random filters", "test error", lines, percent=True, references=references)]


def rademacher(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Empirical Rademacher complexity against the number of examples."""

    def draws(run: Run) -> list[Trace]:
        return _parts(run, "draw", "correlation", "num_train")

    networks = apart({paper.title(name): group for name, group in curves.by_model(runs).items()})
    series = curves.make_series(networks, draws)
    by_seed = grouped(runs, lambda run: run.seed)
    for style, (field, label) in enumerate(CLOSED_FORMS.items(), len(networks)):
        traces = []
        for group in by_seed.values():  # the same for every network
            points = {}
            for run in group:
                points |= curves.measured(run.metrics, field, "num_train")
            if points:
                traces.append(curves.trace(group[0], points))
        if curves.counted(traces):
            series.append(Series(label, style, traces))
    return [Panel("Rademacher complexity", "empirical Rademacher complexity", series)]


def stability(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """How much losses change during training when one training example is replaced."""
    groups = {}
    for (model, p), group in sorted(
        grouped(runs, lambda run: (run.model, run.labels or 0.0)).items()
    ):
        groups[f"{paper.title(model)}, {paper.LABEL_TITLES.get(p, f'p = {p:g}')}"] = group
    panels = []
    for field, label in CHANGES.items():

        def replacements(run: Run, field: str = field) -> list[Trace]:
            return _parts(run, "replacement", field, "step")

        series = curves.make_series(apart(groups), replacements)
        panels.append(Panel("Stability", label, series))
    return panels


def _parts(run: Run, part: str, field: str, x: str) -> list[Trace]:
    """A trace for each number in the field `part` of metrics.jsonl, such as each draw of signs."""
    lines = [line for line in run.metrics if number(line.get(part)) is not None]
    traces = []
    for value, group in sorted(grouped(lines, lambda line: number(line[part])).items()):
        points = curves.measured(group, field, x)
        traces.append(curves.trace(run, points, f", {part} {value:.0f}"))
    return traces
