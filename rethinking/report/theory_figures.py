"""The figures of sections 2.2, 4 and 5: Rademacher complexity, stability, Theorem 1's network, and random filters."""

import math
from collections.abc import Sequence

from rethinking.report import curves, paper
from rethinking.report.catalog import DataSet
from rethinking.report.collect import Run, number
from rethinking.report.curves import CIFAR10, Figure, Panel, Series
from rethinking.report.variants import apart

# Fields of metrics.jsonl, and what `rethinking.theory.complexity` means by them.
CLOSED_FORMS = {"linear_span": "linear, mean square 1", "linear_ball": "linear, unit ball",
                "kernel_ball": "Gaussian kernel, unit ball"}  # fmt: skip
CHANGES = {"max_change": "largest change of a loss", "mean_change": "mean change of the losses"}


def make(runs: Sequence[Run]) -> list[Figure]:
    """The four figures, each for every data set that it was run on."""
    drawn = [run for run in runs if run.result and run.result.get("drawing")]
    filters = [run for run in runs if run.settings.get("features.name") == "random_conv"]
    rademacher, stability = ([run for run in runs if run.kind == "complexity" and run.settings.get("measure") == name]
                             for name in ("rademacher", "stability"))
    return [*(figure_construction(*group) for group in curves.by_data_set(drawn, CIFAR10)),
            *(figure_filters(*group) for group in _by_name(filters)),
            *(figure_rademacher(*group) for group in _by_name(rademacher)),
            *(figure_stability(*group) for group in curves.by_data_set(stability, CIFAR10))]


def _by_name(runs: Sequence[Run]) -> list[tuple[DataSet, list[Run]]]:
    """As `curves.by_data_set`, but runs on any number of a data set's images share their figure."""
    return list((curves.grouped(runs, lambda run: DataSet(run.data.name, 0)) or {CIFAR10: []}).items())


def figure_construction(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Theorem 1's network for a few images, drawn over the line that they are projected on; of the first run."""
    panels, num_images = [], 0
    for run in sorted(runs, key=lambda run: run.seed)[:1]:
        drawing = run.result["drawing"]
        num_images = sum(place["point"] for place in drawing)
        network = [curves.trace(run, {place["x"]: place["output"] for place in drawing if place["point"] == point},
                                f", {name}", point) for point, name in ((True, "images"), (False, "thresholds"))]
        thresholds = [place["x"] for place in drawing if not place["point"]]
        units = [curves.trace(run, {place["x"]: place["units"][j] for place in drawing if place["x"] >= threshold})
                 for j, threshold in enumerate(thresholds)]
        panels = [Panel(f"The network ({data})", "output", [Series("solid: images, hollow: thresholds", 0, network)]),
                  Panel(f"Its hidden units ({data})", "max(x - threshold, 0)",
                        [Series(f"unit {j + 1}", j, [unit]) for j, unit in enumerate(units)])]
    caption = [f"The two-layer network that takes the labels of the first {num_images} images, exactly, over the line "
               "that they are projected on. Before each image lies a threshold, from which on one more hidden unit is "
               "active, so that the weights are found one after the other, from left to right. (Drawn for these images "
               "alone; the run memorizes all.)" if panels else ""]
    return curves.on_data("construction", "Theorem 1: a network built to memorize", data, "projection of the image",
                          panels, caption, [] if panels else ["no run of expressivity's two-layer rows"],
                          scattered=True)


def figure_filters(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Test error of linear models on random convolutional filters against the number of filters."""
    groups = curves.grouped([run for run in runs if run.status != "unfinished"],
                            lambda run: (run.data.num_train or math.inf,
                                         bool(run.settings.get("choose_ridge") or run.settings.get("ridge"))))
    names = {("with a ridge" if ridge else "no ridge") + f", {images:,} images" * (images < math.inf): group
             for (images, ridge), group in sorted(groups.items())}
    lines = []
    for index, (name, group) in enumerate(apart(names, ("features.num_filters", "features.filters_per_block")).items()):
        lines.append(Series(name, index, [curves.trace(run, {float(count): run.value("test_error")}) for run in group
                                          if (count := number(run.settings.get("features.num_filters")))]))
    published = {f"paper{ridge}": paper.TABLES["table3"][row]["test_error"].percent / 100
                 for row, ridge in (("cifar10+random_conv", ""), ("cifar10+random_conv+ridge", ", with a penalty"))}
    panel = Panel(f"Random filters ({data})", "test error", lines, percent=True,
                  references=published if data == CIFAR10 else {})
    caption = ["Test error of the linear model of least norm, and of one with a ridge, in the features of random "
               "filters, against the number of filters. Means over seeds; error bars from the smallest to the largest.",
               curves.mixed_settings(runs, ("features.num_filters", "features.filters_per_block", "ridge",
                                            "choose_ridge", "data.num_train"))]
    return curves.on_data("filters", "Random filters: test error against their number", data, "number of filters",
                          [panel] if lines else [], caption, [] if lines else ["no run of table3's random filters"],
                          scattered=True, no_mean="a seed diverged", log_x=True)


def figure_rademacher(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Empirical Rademacher complexity of networks, and of linear and kernel models, against the number of images."""
    series = []
    models = {paper.title(model): group for model, group in curves.by_model(runs).items()}
    for index, (name, group) in enumerate(apart(models).items()):
        traces = [curves.trace(run, curves.measured(lines, "correlation", "num_train"), f", draw {draw}")
                  for run in group for draw, lines in curves.parts(run, "draw").items()]
        series.append(Series(name, index, traces))
    for index, (field, label) in enumerate(CLOSED_FORMS.items(), len(series)):
        seeds = curves.grouped(runs, lambda run: run.seed)  # the same whatever the network
        traces = [curves.trace(group[0], {x: y for run in group for x, y in curves.measured(
            run.metrics, field, "num_train").items()}) for group in seeds.values()]
        series.append(Series(label, index, [trace for trace in traces if len(trace.x)]))
    series = [one for one in series if curves.counted(one.traces)]
    panel = Panel(f"Rademacher complexity ({data.name})", "empirical Rademacher complexity", series)
    caption = ["Networks: the largest correlation with random signs that training found, 1 if all were fitted; means "
               "over draws of the signs, bands from the smallest to the largest. Linear and kernel models: in closed "
               "form.",
               curves.mixed_settings(runs, ("model.name", "data.num_train"))]
    return curves.on_data("rademacher", "Rademacher complexity: fitting random signs", data, "number of images n",
                          [panel] if series else [], caption,
                          [] if series else ["no run of complexity's rademacher rows"], log_x=True)


def figure_stability(data: DataSet, runs: Sequence[Run]) -> Figure:
    """How much losses change, over training, when one training example is replaced."""
    groups = curves.grouped(runs, lambda run: (str(run.settings.get("model.name")),
                                               number(run.settings.get("randomize.labels")) or 0.0))
    labels = {0.0: "true labels", 1.0: "random labels"}
    names = {f"{paper.title(model)}, {labels.get(p, f'p = {p:g}')}": group
             for (model, p), group in sorted(groups.items())}
    panels = []
    for field, label in CHANGES.items():
        series = []
        for index, (name, group) in enumerate(apart(names).items()):
            traces = [curves.trace(run, curves.measured(lines, field), f", replacement {number}")
                      for run in group for number, lines in curves.parts(run, "replacement").items()]
            series.append(Series(name, index, traces))
        series = [one for one in series if curves.counted(one.traces)]
        panels += [Panel(f"Stability ({data})", label, series)] * bool(series)
    caption = ["Change of the loss on training, fresh and test images when one training image is replaced, against "
               "step. Means over replacements; bands from the smallest to the largest, whose upper edge is the "
               "measured uniform stability.", curves.mixed_settings(runs, ("model.name", "randomize.labels"))]
    return curves.on_data("stability", "Uniform stability: one example replaced", data, "step", panels, caption,
                          [] if panels else ["no run of complexity's stability rows"])
