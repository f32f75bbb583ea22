"""Figures as files: PNG, SVG and PDF in one style, and CSV of every point."""

import csv
import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rethinking.report.curves import Curve, Figure, Panel, Series, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart too; dashes and markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ((), (6, 2), (6, 2, 1.5, 2), (1.5, 1.5), (6, 1.5, 1.5, 1.5, 1.5, 1.5), (3, 1.5), (10, 2.5))
MARKERS = "osD^vPX"
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 9, "lines.linewidth": 1.4, "lines.markersize": 4.5, "legend.frameon": False,
    "legend.fontsize": 8, "figure.constrained_layout.use": True, "savefig.dpi": 200, "svg.hashsalt": "rethinking",
    "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip
KINDS = ("png", "svg", "pdf")
MOST_SERIES = 10  # of a panel, so that they can be told apart
_FEW_POINTS = 20  # are drawn with markers
_DATES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # left out: same runs, same bytes


def draw(figures: Sequence[Figure], output: pathlib.Path) -> None:
    """Writes every figure that has panels as output/NAME.png, .svg, .pdf, and its points as output/NAME.csv."""
    import matplotlib  # here, since it takes a second to load
    from matplotlib.figure import (
        Figure as Canvas,  # not pyplot: no global state, and no display is asked for
    )

    with matplotlib.rc_context(STYLE):
        for figure in figures:
            if not figure.panels:
                continue
            columns = min(len(figure.panels), 2)
            rows = -(-len(figure.panels) // columns)
            legend = max(_legend_lines(panel) for panel in figure.panels)
            canvas = Canvas(figsize=(4.2 * columns, (2.7 + 0.17 * legend) * rows))
            axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
            for axis, panel in zip(axes, figure.panels, strict=False):
                _panel(axis, figure, panel)
            for axis in axes[len(figure.panels) :]:
                axis.remove()
            for _ in range(2):  # the first layout may change the ticks, and their widths the second
                canvas.draw_without_rendering()
            canvas.set_layout_engine("none")  # the layout stays what it is: it need not be found for every file
            for kind in KINDS:
                canvas.savefig(output / f"{figure.name}.{kind}", metadata=_DATES[kind])
            write_csv(figure, output / f"{figure.name}.csv")


def write_csv(figure: Figure, file: pathlib.Path) -> None:
    """Every point of every run, also of those that do not count in the mean; y is empty where it is no number."""
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["panel", "series", "run", "status", "x", "y"])
        for panel in figure.panels:
            for series in panel.series:
                for trace in series.traces:
                    head = (f"{panel.title}, {panel.y_title}", series.name, trace.label, trace.status)
                    points = zip(trace.x.tolist(), trace.y.tolist(), strict=True)
                    writer.writerows((*head, f"{x:g}", "" if y != y else f"{y:.6g}") for x, y in points)


def _panel(axis: "Axes", figure: Figure, panel: Panel) -> None:
    for number, series in enumerate(panel.series[:MOST_SERIES]):
        curve = summary(series, figure.scattered)
        look = {"color": COLOURS[series.style % len(COLOURS)], "dashes": _dashes(series.style)}
        marker = MARKERS[series.style % len(MARKERS)] if len(curve.x) <= _FEW_POINTS else None
        axis.plot(curve.x, curve.mean, label=_label(series), marker=marker, **look)
        if figure.scattered:
            _error_bars(axis, curve, look["color"], marker)
            for x in curve.x[np.isnan(curve.mean)]:
                axis.plot(x, 0.99 - 0.04 * number, "x", color=look["color"], markersize=6, markeredgewidth=1.8,
                          transform=axis.get_xaxis_transform(), clip_on=False)
        else:
            axis.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.2, linewidth=0)
        if series.shade_best:
            best = np.fmax.accumulate(curve.mean)
            axis.fill_between(curve.x, curve.mean, best, color=look["color"], alpha=0.2, linewidth=0)
    if any(np.isnan(summary(series, True).mean).any() for series in panel.series) and figure.no_mean:
        axis.plot([], [], "x", color="gray", markersize=6, markeredgewidth=1.8, label=figure.no_mean)
    _axes(axis, figure, panel)


def _error_bars(axis: "Axes", curve: Curve, colour: str, marker: str | None) -> None:
    for index in np.flatnonzero(np.isfinite(curve.mean)):
        mean = curve.mean[index]
        extent = [[mean - curve.low[index]], [curve.high[index] - mean]]
        hollow = curve.fitted[index] < curve.num[index]
        axis.errorbar(curve.x[index], mean, extent, capsize=2, color=colour, marker=marker,
                      markerfacecolor="white" if hollow else None)


def _axes(axis: "Axes", figure: Figure, panel: Panel) -> None:
    for number, (label, value) in enumerate(panel.references.items()):
        axis.axhline(value, color="gray", linewidth=1, linestyle=":", zorder=0)
        axis.annotate(label, (1, value), xycoords=axis.get_yaxis_transform(), ha="right",
                      xytext=(0, -9 if number % 2 else 2), textcoords="offset points", color="dimgray", fontsize=8)
    axis.set(title=_shortened(panel.title, 60), xlabel=figure.x_title, ylabel=panel.y_title)
    if figure.log_x:
        places = sorted({x for series in panel.series for trace in series.traces for x in trace.x.tolist()})
        axis.set_xscale("log")
        axis.set_xticks(places, _tick_labels(places), minor=False)
        axis.minorticks_off()
    elif figure.x_title == "step":
        axis.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
    if figure.log_y:
        axis.set_yscale("log")
    elif axis.dataLim.ymin >= 0:
        axis.set_ylim(bottom=0)
    if axis.get_ylim()[1] > panel.y_max:
        axis.set_ylim(top=panel.y_max)
    if panel.percent:
        if axis.get_ylim()[1] > 0.5:
            axis.set_ylim(top=1.02)
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    if len(panel.series) > MOST_SERIES:
        axis.plot([], [], " ", label=f"and {len(panel.series) - MOST_SERIES} more, in the CSV file")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=_columns(panel))  # below: it hides nothing


def _tick_labels(places: list[float]) -> list[str]:
    """Labels on a logarithmic axis, empty where one would touch the label before."""
    labels, last = [], 0.0
    for x in places:
        free = not last or math.log(x / last) >= 0.09 * math.log(places[-1] / places[0])
        last = x if free else last
        labels.append((f"{x:,g}" if x < 1000 else f"{x / 1000:g}k") if free else "")
    return labels


def _columns(panel: Panel) -> int:
    """Columns of the legend, which is to be no wider than the axes."""
    return 2 if max(len(series.name) for series in panel.series) <= 24 else 1


def _legend_lines(panel: Panel) -> int:
    lines = [_label(series).count("\n") + 1 for series in panel.series[:MOST_SERIES]]
    return -(-(sum(lines) + (len(panel.series) > MOST_SERIES)) // _columns(panel))


def _label(series: Series) -> str:
    return "\n".join(textwrap.wrap(_shortened(series.name, 96), 48, break_on_hyphens=False))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _dashes(style: int) -> tuple[int | float, ...]:
    """A dash pattern; two styles of the same colour have different ones."""
    return DASHES[(style + style // len(COLOURS)) % len(DASHES)]
