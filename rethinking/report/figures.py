"""Figures 1a, 1b and 1c of the paper from the runs that are there, as PNG and SVG."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rethinking.report import curves, paper
from rethinking.report.collect import Run, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart too; the lines' styles differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = "osD^vPX"
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 1.4, "lines.markersize": 4.5, "legend.frameon": False, "legend.fontsize": 8,
    "figure.constrained_layout.use": True, "savefig.dpi": 200, "svg.hashsalt": "rethinking",
}  # fmt: skip
SETTING_TITLES = {name: name.replace("_", " ") for name in ("true_labels", "random_labels", "shuffled_pixels",
                                                            "random_pixels")} | {"gaussian": "Gaussian pixels"}
_PAPERS_DATA = curves.DataSet("cifar10", 0)
# Test error of guessing, where the classes are balanced.
CHANCE = {"cifar10": 0.9, "mnist": 0.9, "fashion_mnist": 0.9, "digits": 0.9, "cifar100": 0.99}
EXTREMES = "Means over seeds; {} from the smallest to the largest."


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure, or why there is none."""

    name: str
    title: str
    caption: str
    svg: pathlib.Path | None  # None if there was nothing to draw
    missing: list[str]


def draw(runs: Sequence[Run], output: pathlib.Path) -> list[Drawn]:
    """Draws Figure 1 once per data set of the runs without regularizers, and says what it lacks.

    Files are output/figure_1a_cifar10.png and .svg, and the like; a subset of the data has its size in the name.
    """
    import matplotlib  # here, since it takes a second to load

    groups = curves.by_data_set(curves.plain(runs)) or {_PAPERS_DATA: []}
    with matplotlib.rc_context(STYLE):
        return [panel(data, group, output) for data, group in groups.items() for panel in (_draw_a, _draw_b, _draw_c)]


def _draw_a(data: curves.DataSet, runs: Sequence[Run], output: pathlib.Path) -> Drawn:
    found = {model: {name: curve for name, those in curves.by_setting(group).items()
                     if (curve := curves.learning_curve(those))} for model, group in curves.by_model(runs).items()}
    found = {model: settings for model, settings in found.items() if settings}
    missing = [f"{title(model)}: no run with {', '.join(left)}" for model, settings in found.items()
               if (left := [label for name, label in SETTING_TITLES.items() if name not in settings])]
    if data == _PAPERS_DATA and "inception" not in found:
        missing.append("Inception, which the paper shows: no run")
    figure, axes = _new_figure(max(1, len(found)))
    for axis, (model, settings) in zip(axes, found.items(), strict=False):
        for index, (name, label) in enumerate(SETTING_TITLES.items()):
            if name in settings:
                curve, colour = settings[name], COLOURS[index]
                axis.plot(curve.steps, curve.mean, color=colour, linestyle=LINES[index], label=label)
                axis.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        axis.set(title=_literal(f"{title(model)} ({data})"), ylabel="training loss", xlabel="step")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step else "0")
        axis.legend()
    caption = ("Training loss against step under the five randomizations. " + EXTREMES.format("bands")
               + " Only steps that all complete seeds reached; diverged runs are left out.")
    return _save("1a", data, runs, figure if found else None, caption, missing, output)


def _draw_b(data: curves.DataSet, runs: Sequence[Run], output: pathlib.Path) -> Drawn:
    points = {model: curves.relative_times(group) for model, group in curves.by_model(runs).items()}
    missing = [f"{title(model)}: nothing to compare with, its runs on true labels are missing or were not fitted"
               for model in points if not points[model]]
    figure, (axis,) = _new_figure(1)
    drawn = _lines(axis, data, points, missing, "not every seed fitted")
    axis.set(ylabel="steps to fit, relative to true labels", title=_literal(f"Time to fit ({data})"))
    caption = ("Steps until the training set is fitted, divided by those for true labels, against the probability "
               "that a label is corrupted. " + EXTREMES.format("error bars") + " A cross at the top: some seed did not "
               "fit, so there is no mean.")
    return _save("1b", data, runs, figure if drawn else None, caption, missing, output)


def _draw_c(data: curves.DataSet, runs: Sequence[Run], output: pathlib.Path) -> Drawn:
    points = {model: curves.final_errors(group) for model, group in curves.by_model(runs).items()}
    missing = []
    figure, (axis,) = _new_figure(1)
    drawn = _lines(axis, data, points, missing, "a seed diverged")
    if data.name in CHANCE:
        axis.axhline(CHANCE[data.name], color="gray", linewidth=1, linestyle=":", zorder=0)
        axis.annotate("chance", (0, CHANCE[data.name]), xytext=(0, 2), textcoords="offset points", color="dimgray",
                      fontsize=8)
    axis.set(ylabel="test error", title=_literal(f"Test error ({data})"))
    axis.set_ylim(0, 1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    caption = ("Test error at the end of training against the probability that a label is corrupted. "
               + EXTREMES.format("error bars") + " A hollow marker: some seed did not fit its training set. "
               "A cross at the top: some seed diverged.")
    return _save("1c", data, runs, figure if drawn else None, caption, missing, output)


def _lines(axis: "Axes", data: curves.DataSet, points: dict[str, list[curves.Point]], missing: list[str],
           cross: str) -> bool:  # fmt: skip
    """A broken line per network with at least two corruptions; adds what lacks to `missing`. True if any was drawn.

    A cross, which means what `cross` says, stands at the top where a corruption has runs but no mean.
    """
    of_paper = data == _PAPERS_DATA
    grid = paper.FIGURE1_CORRUPTIONS if of_paper else {point.p for those in points.values() for point in those}
    missing += [f"{title(model)}: no run" for model in paper.FIGURE1_MODELS if of_paper and model not in points]
    enough = {model: those for model, those in points.items() if len(those) > 1}
    for model, those in enough.items():
        index = list(points).index(model)  # the same colour in every figure of a data set
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        full = curves.on_grid(those, grid)
        if left := [f"{point.p:g}" for point in full if point.seeds == 0]:
            missing.append(f"{title(model)}: no run with p = {', '.join(left)}")
        nan = float("nan")
        run = [point for point in full if point.seeds]
        axis.plot([point.p for point in run], [nan if point.mean is None else point.mean for point in run],
                  linestyle=LINES[index % len(LINES)], label=_literal(title(model)), **look)
        for point in full:
            if point.mean is not None:
                axis.errorbar(point.p, point.mean, [[point.mean - point.low], [point.high - point.mean]], capsize=2,
                              markerfacecolor="white" if point.fitted < point.seeds else None, **look)
            elif point.seeds:
                axis.plot(point.p, 0.99 - 0.04 * index, "x", color=look["color"], markersize=6, markeredgewidth=1.8,
                          transform=axis.get_xaxis_transform(), clip_on=False)
    if any(point.seeds and point.mean is None for those in enough.values() for point in those):
        axis.plot([], [], "x", color="gray", markersize=6, markeredgewidth=1.8, label=cross)
    missing += [f"{title(model)}: runs with two or more corruptions are needed"
                for model, those in points.items() if len(those) == 1]
    axis.set(xlabel="label corruption p", xlim=(-0.04, 1.04))
    if enough:
        axis.legend(loc="best")
    return bool(enough)


def title(model: str) -> str:
    """A network's name in the paper; its own name if it is not in there."""
    return paper.MODEL_TITLES.get(model, model)


def _literal(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read mathematics between dollar signs


def _new_figure(panels: int) -> tuple["Figure", list["Axes"]]:
    """Panels one above the other, so that the figure stays readable at half the width of a page."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no display is asked for

    figure = Figure(figsize=(4.2, 2.9 * panels))
    return figure, list(figure.subplots(panels, squeeze=False)[:, 0])


def _save(letter: str, data: curves.DataSet, runs: Sequence[Run], figure: "Figure | None", caption: str,
          missing: list[str], output: pathlib.Path) -> Drawn:  # fmt: skip
    name = f"figure_{letter}_{slug(data.name)}" + f"_{data.num_train}" * (data.num_train > 0)
    heading = f"Figure {letter}: {data}"
    if figure is None:
        why = missing if runs else [f"no runs on {data} without weight decay and augmentation"]
        return Drawn(name, heading, "", None, why or ["no run with metrics of the kind needed"])
    figure.savefig(output / f"{name}.png")
    figure.savefig(output / f"{name}.svg", metadata={"Date": None})
    return Drawn(name, heading, f"{caption} {curves.mixed_settings(runs)}".strip(), output / f"{name}.svg", missing)
