"""The figures that the runs give: which runs each one shows, and what it lacks. Drawn by `draw` and `page`."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from rethinking.report import curves, paper, theory_figures
from rethinking.report.catalog import DataSet
from rethinking.report.collect import Collection, Run, slug
from rethinking.report.curves import CIFAR10, Figure, Panel, Series
from rethinking.report.paper import title
from rethinking.report.variants import apart, split

SETTING_TITLES = {name: name.replace("_", " ") for name in ("true_labels", "random_labels", "shuffled_pixels",
                                                            "random_pixels")} | {"gaussian": "Gaussian pixels"}
# Test error of guessing, where the classes are balanced.
CHANCE = {"cifar10": 0.9, "mnist": 0.9, "fashion_mnist": 0.9, "digits": 0.9, "cifar100": 0.99}
BANDS = "Means over seeds; bands from the smallest to the largest."
BARS = "Means over seeds; error bars from the smallest to the largest."
ENDED = "Only steps that all complete seeds reached; diverged runs are left out of the mean."
BEST = "Shaded above a line of test accuracy: the best so far."


def make(collection: Collection) -> list[Figure]:
    """Figures 1 and 2 for each data set they have been run on, those of sections 2.2 and 5, that on asynchronous
    workers, and the learning curves of every experiment that trains."""
    runs = [run for run in collection.runs if run.kind == "training"]
    figures = []
    for data, group in curves.by_data_set(curves.plain(runs), CIFAR10):
        figures += [figure_1a(data, group), figure_1b(data, group), figure_1c(data, group)]
    figures += [figure_2a(*group) for group in curves.by_data_set(_of("table2", collection), paper.DATA["table2"])]
    figures.append(figure_2b(CIFAR10, [run for run in curves.plain(runs) if run.data == CIFAR10]))
    figures += [figure_async(*group) for group in curves.by_data_set(_of("figure_async", collection), CIFAR10)]
    figures += theory_figures.make(collection.runs)
    experiments = sorted({run.row.partition(":")[0] for run in runs})
    return figures + [learning_curves(experiment, collection) for experiment in experiments]


def figure_1a(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Training loss against step under the five randomizations; a panel for each network."""
    panels, missing = [], []
    for model, group in curves.by_model(runs).items():
        settings = curves.by_setting(group)
        groups = apart({label: settings.get(name, []) for name, label in SETTING_TITLES.items()})
        found = [line for index, (label, those) in enumerate(groups.items())
                 if (line := curves.learning_curves(label, index, those))]
        if found:
            panels.append(_losses(f"{title(model)} ({data})", found))
            left = [label for label in SETTING_TITLES.values()
                    if not any(line.name.partition(", ")[0] == label for line in found)]
            missing += [f"{title(model)}: no run with {', '.join(left)}"] * bool(left)
    if data == CIFAR10 and not any(panel.title.startswith(f"{title('inception')} (") for panel in panels):
        missing.append("Inception, which the paper shows: no run")
    caption = ["Training loss against step under the five randomizations.", BANDS, ENDED, *_cut(panels),
               curves.mixed_settings(runs)]
    return curves.on_data("1a", "Figure 1a: training loss under randomization", data, "step", panels, caption,
                          _why(missing, data, runs))


def figure_1b(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Time to fit, relative to true labels, against label corruption."""
    lines, missing = _corruptions(data, runs, curves.relative_times)
    missing += [f"{name}: nothing to compare with, its runs on true labels are missing or were not fitted"
                for name, group in _networks(runs).items() if not curves.relative_times(group)]
    panel = Panel(f"Time to fit ({data})", "steps to fit, relative to true labels", lines)
    caption = ["Steps until the training set is fitted, divided by those for true labels, against the probability that "
               "a label is corrupted.", BARS, "A cross at the top: some seed did not fit, so there is no mean.",
               curves.mixed_settings(runs)]
    return curves.on_data("1b", "Figure 1b: time to fit corrupted labels", data, "label corruption p",
                          [panel] if lines else [], caption, _why(missing, data, runs), scattered=True,
                          no_mean="not every seed fitted")


def figure_1c(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Test error at the end of training against label corruption."""
    lines, missing = _corruptions(data, runs, curves.final_errors)
    references = {"chance": CHANCE[data.name]} if data.name in CHANCE else {}
    panel = Panel(f"Test error ({data})", "test error", lines, percent=True, references=references)
    caption = ["Test error at the end of training against the probability that a label is corrupted.", BARS,
               "A hollow marker: some seed did not fit its training set. A cross at the top: some seed diverged.",
               curves.mixed_settings(runs)]
    return curves.on_data("1c", "Figure 1c: test error after fitting corrupted labels", data, "label corruption p",
                          [panel] if lines else [], caption, _why(missing, data, runs), scattered=True,
                          no_mean="a seed diverged")


def figure_2a(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Training and test accuracy of Table 2's rows with true labels."""
    rows = [row for row in paper.TABLES["table2"] if "random_labels" not in row]
    found = curves.grouped(runs, lambda run: run.row.partition(":")[2])
    lines = _train_and_test(apart({row: found.get(row, []) for row in rows}))
    missing = [f"no run of {row}" for row in rows if row not in found]
    panel = Panel(f"Inception V3 ({data})", "accuracy", lines, percent=True)
    caption = ["Training and test accuracy over training, with and without regularizers.", BANDS, BEST]
    return curves.on_data("2a", "Figure 2a: regularizers and early stopping", data, "step", [panel] if lines else [],
                          caption, missing)


def figure_2b(data: DataSet, runs: Sequence[Run]) -> Figure:
    """Training and test accuracy of Inception on CIFAR10, with and without batch norm."""
    found = {model: curves.by_setting(group).get("true_labels", []) for model, group in curves.by_model(runs).items()}
    shown = {title(model): found.get(model, []) for model in paper.FIGURE2_MODELS}
    lines = _train_and_test(apart(shown))
    missing = [f"{label}: no run with true labels" for label, group in shown.items() if not group]
    panel = Panel(f"Inception ({data})", "accuracy", lines, percent=True)
    caption = ["Training and test accuracy over training, with and without batch norm, no explicit regularizer.", BANDS,
               BEST, curves.mixed_settings([run for group in shown.values() for run in group])]
    return curves.on_data("2b", "Figure 2b: batch norm and early stopping", data, "step", [panel] if lines else [],
                          caption, missing)


def figure_async(data: DataSet, runs: Sequence[Run]) -> Figure:
    """What data-parallel SGD in place of asynchronous workers leaves out: training with delayed gradients."""
    panels = []
    for model, group in curves.by_model(runs).items():
        groups = sorted(curves.grouped(group, curves.workers).items())
        names = {f"{number} worker{'s' * (number > 1)}": those for number, those in groups}
        panels += _loss_and_accuracy(f"{title(model)} ({data})", apart(names))
    caption = ["Training as by asynchronous workers that take turns: each gradient is applied as many steps late as "
               "there are other workers.", BANDS, ENDED, *_cut(panels)]
    return curves.on_data("async", "Asynchronous workers: training with delayed gradients", data, "step", panels,
                          caption, [] if panels else ["no run of configs/figure_async.py"])


def learning_curves(experiment: str, collection: Collection) -> Figure:
    """Training loss and test accuracy of all rows of an experiment, two panels for each network and data set."""
    groups: dict[tuple[DataSet, str], dict[str, list[Run]]] = {}
    for row in sorted(row for row in collection.digests if row.partition(":")[0] == experiment):
        of = curves.grouped(collection.of_row(row), lambda run: (run.data, str(run.settings.get("model.name"))))
        for network, runs in of.items():
            lines = {line.name: line.runs for line in split(experiment, row.partition(":")[2], runs)}
            groups.setdefault(network, {}).update(lines)
    panels = [panel for (data, model), lines in sorted(groups.items())
              for panel in _loss_and_accuracy(f"{title(model)} ({data})", lines)]
    return Figure(f"curves_{slug(experiment)}", f"Learning curves of {experiment}", "step", panels,
                  " ".join([BANDS, ENDED, *_cut(panels)]),
                  [] if panels else ["no run with metrics that did not diverge"])


def _of(experiment: str, collection: Collection) -> list[Run]:
    """The runs of all rows of an experiment, whatever name they were made under."""
    rows = sorted(row for row in collection.digests if row.partition(":")[0] == experiment)
    return list({run.path: run for row in rows for run in collection.of_row(row)}.values())


def _loss_and_accuracy(name: str, groups: dict[str, list[Run]]) -> list[Panel]:
    losses, accuracies = (
        [line for index, (row, runs) in enumerate(groups.items())
         if (line := curves.learning_curves(row, index, runs, field))] for field in ("train_loss", "test_accuracy"))
    panels = [_losses(name, losses), Panel(name, "test accuracy", accuracies, percent=True)]
    return [panel for panel in panels if panel.series]


def _losses(name: str, series: list[Series]) -> Panel:
    """A panel of training losses, whose axis ends at three times the largest at the start: a passing peak, as after
    a batch norm's first steps, would hide all the rest."""
    first = [trace.y[0] for line in series for trace in curves.counted(line.traces) if np.isfinite(trace.y[:1]).any()]
    return Panel(name, "training loss", series, y_max=3 * max(first, default=math.inf))


def _cut(panels: Sequence[Panel]) -> list[str]:
    """The sentence of a caption on panels whose lines leave them, if there are any."""
    left = any((trace.y > panel.y_max).any() for panel in panels for line in panel.series
               for trace in curves.counted(line.traces))
    return ["An axis of losses ends at three times the loss at the start; the CSV file has the rest."] * left


def _train_and_test(groups: dict[str, list[Run]]) -> list[Series]:
    parts = [("train", "train_accuracy", False), ("test", "test_accuracy", True)]
    found = [curves.learning_curves(f"{name}, {part}", 2 * index + (part == "test"), runs, field, shade)
             for index, (name, runs) in enumerate(groups.items()) for part, field, shade in parts]
    return [line for line in found if line]


def _corruptions(data: DataSet, runs: Sequence[Run], traces: Callable) -> tuple[list[Series], list[str]]:
    """A line for each network, and settings of it, with at least two corruptions, and what lacks."""
    models = curves.by_model(runs)
    missing = [f"{title(model)}: no run" for model in paper.FIGURE1_MODELS if data == CIFAR10 and model not in models]
    lines = []
    for index, (name, group) in enumerate(_networks(runs).items()):  # the same style in every figure of a data set
        found = traces(group)
        there = {x for trace in found for x in trace.x.tolist()}
        if len(there) > 1:
            lines.append(Series(name, index, found))
            if left := [f"{p:g}" for p in paper.FIGURE1_CORRUPTIONS if data == CIFAR10 and p not in there]:
                missing.append(f"{name}: no run with p = {', '.join(left)}")
        elif there:
            missing.append(f"{name}: runs with two or more corruptions are needed")
    return lines, missing


def _networks(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each network, apart by their settings, the randomization aside."""
    return apart({title(model): group for model, group in curves.by_model(runs).items()},
                 ("randomize.labels", "randomize.pixels"))


def _why(missing: list[str], data: DataSet, runs: Sequence[Run]) -> list[str]:
    return missing if runs else [f"no runs on {data} without weight decay and augmentation"]
