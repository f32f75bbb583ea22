"""The figures: which runs each one shows, and how. `vega` draws them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rethinking.report import curves, paper, theory_figures, training_figures
from rethinking.report.collect import Collection, grouped, slug
from rethinking.report.curves import Figure, Panel
from rethinking.report.paper import DataSet, title
from rethinking.report.run import Run
from rethinking.report.settings import split

BANDS = "Lines: means over seeds. Bands: from the smallest to the largest value."
BARS = "Points: means over seeds. Bars: from the smallest to the largest value."
BEST = "Shaded above a line of test accuracy: the best value so far."
CUT = "An axis of losses ends at three times the loss at the start. The CSV file has the rest."


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure of the paper, or one on its claims; it is drawn for every data set with runs."""

    key: str  # "1a" names the files figure_1a_cifar10
    title: str
    x_title: str
    choose: Callable[[Collection], Sequence[Run]]
    panels: Callable[[DataSet, Sequence[Run]], Sequence[Panel]]
    caption: str
    varied: tuple[str, ...] = ()  # the settings in which its runs differ on purpose
    all_sizes: bool = False  # whether runs on different numbers of examples share a figure
    axes: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of Figure


def make(collection: Collection) -> list[Figure]:
    """Every plot that has runs, for each data set, and learning curves of every experiment."""
    figures = []
    for plot in PLOTS:
        runs = plot.choose(collection)
        size = 0 if plot.all_sizes else None
        groups = curves.by_data_set(runs, size)
        for data, group in groups.items():
            figures.append(_figure(plot, data, group, is_only=len(groups) == 1))
    trained = {run.experiment for run in collection.runs if run.kind == "training"}
    figures += [learning_curves(experiment, collection) for experiment in sorted(trained)]
    return [figure for figure in figures if figure.panels]


def not_run(figures: Sequence[Figure]) -> list[str]:
    """The titles of the plots that none of `figures` shows."""
    titles = [figure.title for figure in figures]
    plots = [plot.title for plot in PLOTS]
    return [plot for plot in plots if not any(one.startswith(plot) for one in titles)]


def _figure(plot: Plot, data: DataSet, runs: Sequence[Run], is_only: bool) -> Figure:
    panels = []
    for panel in plot.panels(data, runs):
        if panel.series:
            panels.append(dataclasses.replace(panel, title=f"{panel.title}, {data}"))
    mixed = curves.mixed_settings(runs, (*plot.varied, "model.name"))
    revisions = sorted({run.revision for run in runs if run.result})
    heading = plot.title.partition(":")[0]
    return Figure(
        name=f"figure_{plot.key}_{slug(data.key)}",
        title=f"{plot.title}, {data}",
        short=heading if is_only else f"{heading}, {data}",
        x_title=plot.x_title,
        panels=panels,
        caption=" ".join(filter(None, [plot.caption, _cut(panels), mixed])),
        revisions=revisions if len(revisions) > 1 else [],
        **plot.axes,
    )


def learning_curves(experiment: str, collection: Collection) -> Figure:
    """Training loss and test accuracy of an experiment's rows, by data set and network."""
    groups: dict[tuple[DataSet, str], dict[str, list[Run]]] = {}
    for row in collection.rows(experiment):
        runs = collection.of_row(f"{experiment}:{row}")
        for network, those in grouped(runs, lambda run: (run.data, run.model)).items():
            lines = {name: found for name, (found, _) in split(experiment, row, those).items()}
            groups.setdefault(network, {}).update(lines)
    panels = []
    for (data, model), lines in sorted(groups.items()):
        panels += training_figures.loss_and_accuracy(f"{title(model)}, {data}", lines)
    name = paper.TITLES.get(experiment, experiment).partition(":")[0]
    return Figure(
        name=f"curves_{slug(experiment)}",
        title=f"Learning curves: {name}",
        short=name,
        x_title="step",
        panels=panels,
        caption=" ".join(filter(None, [BANDS, _cut(panels)])),
        is_curves=True,
    )


def _plain(collection: Collection) -> list[Run]:
    return curves.plain(collection.runs)


def _inceptions(collection: Collection) -> list[Run]:
    """The runs of Figure 2b: Inception on the true labels of CIFAR10."""
    models = [run for run in _plain(collection) if run.model in paper.FIGURE2_MODELS]
    on_cifar10 = [run for run in models if run.data == paper.CIFAR10]
    return curves.by_setting(on_cifar10).get("true_labels", [])


def _cut(panels: Sequence[Panel]) -> str:
    """The sentence on lines that leave their panel, if there are any."""
    for panel in panels:
        for line in panel.series:
            if any((trace.y > panel.y_max).any() for trace in curves.counted(line.traces)):
                return CUT
    return ""


PLOTS = [
    Plot(
        "1a",
        "Figure 1a: training loss under randomization",
        "step",
        _plain,
        training_figures.figure_1a,
        f"Training loss against step under the five randomizations. {BANDS}",
        varied=curves.RANDOMIZED,
    ),
    Plot(
        "1b",
        "Figure 1b: time to fit corrupted labels",
        "label corruption p",
        _plain,
        training_figures.figure_1b,
        "Steps until the training set is fitted, divided by those for true labels, against the "
        f"probability that a label is corrupted. {BARS} "
        "A cross at the top: some seed did not fit, so there is no mean.",
        varied=curves.RANDOMIZED,
        axes={"scattered": True, "no_mean": "not every seed fitted"},
    ),
    Plot(
        "1c",
        "Figure 1c: test error after fitting corrupted labels",
        "label corruption p",
        _plain,
        training_figures.figure_1c,
        "Test error at the end of training against the probability that a label is corrupted. "
        f"{BARS} A hollow marker: some seed did not fit its training set. "
        "A cross at the top: some seed diverged.",
        varied=curves.RANDOMIZED,
        axes={"scattered": True, "no_mean": "a seed diverged"},
    ),
    Plot(
        "2a",
        "Figure 2a: regularizers and early stopping",
        "step",
        lambda collection: collection.of_experiment("table2"),
        training_figures.figure_2a,
        f"Training and test accuracy, with and without regularizers. {BANDS} {BEST}",
        varied=("augment.*", "weight_decay", "model.options.dropout", *curves.RANDOMIZED),
    ),
    Plot(
        "2b",
        "Figure 2b: batch norm and early stopping",
        "step",
        _inceptions,
        training_figures.figure_2b,
        f"Training and test accuracy, without explicit regularizers. {BANDS} {BEST}",
    ),
    Plot(
        "async",
        "Asynchronous workers: delayed gradients",
        "step",
        lambda collection: collection.of_experiment("figure_async"),
        training_figures.figure_async,
        "Training with delayed gradients, as with asynchronous workers that take turns. "
        f"The delay in steps is the number of other workers. {BANDS}",
        varied=("workers",),
    ),
    Plot(
        "construction",
        "Theorem 1: a network built to memorize",
        "projection of the example",
        theory_figures.drawn,
        theory_figures.construction,
        "A two-layer network that reproduces the labels of a few examples exactly. Before each "
        "example lies a threshold, from which one more hidden unit is active. So the weights "
        "follow one after the other, from left to right. The run itself memorizes all examples.",
        varied=("one_hot", "depth", "data.num_train"),
        axes={"scattered": True},
    ),
    Plot(
        "filters",
        "Random filters: test error",
        "number of filters",
        theory_figures.random_filters,
        theory_figures.filters,
        "Test error of linear models in the features of random filters: the solution of least "
        f"norm, and one with a ridge. {BARS}",
        varied=(*theory_figures.FILTERS, "ridge", "choose_ridge", "data.num_train"),
        all_sizes=True,
        axes={"scattered": True, "no_mean": "a seed diverged", "log_x": True},
    ),
    Plot(
        "rademacher",
        "Rademacher complexity: fitting random signs",
        "number of examples n",
        theory_figures.measured("rademacher"),
        theory_figures.rademacher,
        "Networks: the largest correlation with random signs that training found; 1 if it fitted "
        "all signs. Lines: means over draws of the signs. Bands: from the smallest to the largest "
        "value. Linear and kernel models: in closed form.",
        varied=("data.num_train",),
        all_sizes=True,
        axes={"log_x": True},
    ),
    Plot(
        "stability",
        "Uniform stability: one example replaced",
        "step",
        theory_figures.measured("stability"),
        theory_figures.stability,
        "Change of the loss on training, fresh and test examples when one training example is "
        "replaced. Lines: means over replacements. Bands: from the smallest to the largest value. "
        "The upper edge is the measured uniform stability.",
        varied=("randomize.labels",),
    ),
]
