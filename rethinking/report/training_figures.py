"""The panels of the figures on training: Figures 1 and 2, workers, and learning curves."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rethinking.report import curves, paper
from rethinking.report.collect import grouped
from rethinking.report.curves import Panel, Series, Trace
from rethinking.report.paper import DataSet, title
from rethinking.report.run import Run
from rethinking.report.settings import apart

SETTING_TITLES = {
    "true_labels": "true labels",
    "random_labels": "random labels",
    "shuffled_pixels": "shuffled pixels",
    "random_pixels": "random pixels",
    "gaussian": "Gaussian pixels",
}
# Test error of guessing, where the classes are balanced.
CHANCE = {"cifar10": 0.9, "mnist": 0.9, "fashion_mnist": 0.9, "digits": 0.9, "cifar100": 0.99}


def figure_1a(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Training loss against step under the five randomizations, a panel for each network."""
    panels = []
    for model, group in curves.by_model(runs).items():
        settings = curves.by_setting(group)
        named = {label: settings.get(name, []) for name, label in SETTING_TITLES.items()}
        panels.append(_losses(title(model), curves.learning_curves(apart(named))))
    return panels


def figure_1b(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Time to fit, relative to true labels, against label corruption."""
    lines = _corruptions(runs, relative_times)
    return [Panel("Time to fit", "steps to fit, relative to true labels", lines)]


def figure_1c(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Test error at the end of training against label corruption."""
    lines = _corruptions(runs, final_errors)
    references = {"chance": CHANCE[data.name]} if data.name in CHANCE else {}
    return [Panel("Test error", "test error", lines, percent=True, references=references)]


def figure_2a(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Training and test accuracy of Table 2's rows with true labels."""
    found = grouped(runs, lambda run: run.row.partition(":")[2])
    groups = {name: found.get(name, []) for name in paper.TABLES["table2"]}
    true = {name: group for name, group in groups.items() if "random_labels" not in name}
    return _train_and_test("Inception V3", true)


def figure_2b(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Training and test accuracy of Inception with and without batch norm."""
    models = curves.by_model(runs)
    shown = {model: models.get(model, []) for model in paper.FIGURE2_MODELS}
    return _train_and_test("Inception", {title(model): group for model, group in shown.items()})


def figure_async(data: DataSet, runs: Sequence[Run]) -> list[Panel]:
    """Training with delayed gradients, as asynchronous workers have them."""
    panels = []
    for model, group in curves.by_model(runs).items():
        names = {}
        for number, those in sorted(grouped(group, curves.workers).items()):
            names[f"{number} worker" if number == 1 else f"{number} workers"] = those
        panels += loss_and_accuracy(title(model), apart(names))
    return panels


def loss_and_accuracy(name: str, groups: dict[str, list[Run]]) -> list[Panel]:
    losses = curves.learning_curves(groups, "train_loss")
    accuracies = curves.learning_curves(groups, "test_accuracy")
    panels = [_losses(name, losses), Panel(name, "test accuracy", accuracies, percent=True)]
    return [panel for panel in panels if panel.series]


def _losses(name: str, series: list[Series]) -> Panel:
    """A panel of training losses that ends at three times the largest loss at the start.

    A short peak, as after the first steps of batch norm, would hide everything else.
    """
    traces = [trace for line in series for trace in curves.counted(line.traces)]
    first = [trace.y[0] for trace in traces if np.isfinite(trace.y[:1]).any()]
    return Panel(name, "training loss", series, y_max=3 * max(first, default=np.inf))


def _train_and_test(name: str, groups: dict[str, list[Run]]) -> list[Panel]:
    lines = []
    for group, runs in apart(groups).items():
        for part in ("train", "test"):
            for line in curves.learning_curves({f"{group}, {part}": runs}, f"{part}_accuracy"):
                line = dataclasses.replace(line, style=len(lines), shade_best=part == "test")
                lines.append(line)
    return [Panel(name, "accuracy", lines, percent=True)]


def _corruptions(runs: Sequence[Run], traces: Callable) -> list[Series]:
    """A line for each network, and settings of it, that has two or more corruptions."""
    models = {title(model): group for model, group in curves.by_model(runs).items()}
    lines = []
    for style, (name, group) in enumerate(apart(models, curves.RANDOMIZED).items()):
        found = traces(group)
        if len({x for trace in found for x in trace.x.tolist()}) > 1:
            lines.append(Series(name, style, found))
    return lines


def relative_times(runs: Sequence[Run]) -> list[Trace]:
    """Figure 1b for one network: p and steps to fit, divided by the mean steps to fit true labels.

    nan for a run that did not fit. Empty if no run on true labels fits.
    """
    groups = curves.by_corruption(_ended(runs))
    reference = [run.value("fit_step") for run in groups.get(0.0, []) if _fitted(run)]
    if not reference:
        return []
    unit = float(np.mean(reference))
    found = []
    for p, group in groups.items():
        for run in group:
            time = run.value("fit_step") / unit if _fitted(run) else None
            found.append(curves.trace(run, {p: time}, fitted=_fitted(run)))
    return found


def final_errors(runs: Sequence[Run]) -> list[Trace]:
    """Figure 1c for one network: p and the final test error in [0, 1]; nan for a diverged run."""
    found = []
    for p, group in curves.by_corruption(_ended(runs)).items():
        for run in group:
            # A diverged run has an accuracy too, which means nothing: its logits are not numbers.
            accuracy = run.value("test_accuracy") if run.status == "complete" else None
            error = None if accuracy is None else 1 - accuracy
            found.append(curves.trace(run, {p: error}, fitted=_fitted(run)))
    return found


def _fitted(run: Run) -> bool:
    return run.status == "complete" and run.value("fit_step") is not None


def _ended(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.status != "unfinished"]
