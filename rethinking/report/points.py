"""The data that a panel draws: the points of each line, as rows of a table."""

import csv
import io
import math
from typing import Any

import numpy as np

from rethinking.report.curves import Series, summary

MOST_POINTS = 200  # of a line; a panel is about 400 pixels wide
MOST_TIPS = 40  # points of a line that show their values
NUMBERS = ("x", "y", "low", "high", "best", "runs", "hollow", "tip")


def rows(line: Series, scattered: bool) -> list[dict[str, Any]]:
    """The data of a line: means, extremes, the best value so far, and the number of runs."""
    curve = summary(line, scattered)
    shown = _thinned(len(curve.x), MOST_POINTS)
    with_tip = {shown[index] for index in _thinned(len(shown), MOST_TIPS)}
    best = np.fmax.accumulate(curve.mean)
    rows = []
    for index in shown:
        row = {"series": line.name, "x": _text(curve.x[index]), "y": _text(curve.mean[index])}
        if curve.high[index] > curve.low[index]:
            row |= {"low": _text(curve.low[index]), "high": _text(curve.high[index])}
        if line.shade_best:
            row["best"] = _text(best[index])
        row["runs"] = int(curve.num[index])
        row["hollow"] = int(scattered and curve.fitted[index] < curve.num[index])
        row["tip"] = int(index in with_tip)
        rows.append(row)
    return rows


def _thinned(count: int, most: int) -> list[int]:
    """At most about `most` of the indices 0 to count - 1: every k-th, and the last."""
    every = max(1, math.ceil(count / most))
    return sorted({*range(0, count, every), *range(max(count - 1, 0), count)})


def _text(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.5g}" if value % 1 else f"{value:.0f}"


def to_csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("series", *NUMBERS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
