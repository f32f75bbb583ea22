"""Figures as Vega-Lite specifications, which the page shows and `render` makes files of."""

import dataclasses
import hashlib
import io
import json
import math
import re
from typing import Any

from rethinking.report import points
from rethinking.report.curves import Figure, Panel, Series
from rethinking.report.looks import (
    BACKGROUND,
    COLOURS,
    CONFIG,
    CROSS,
    DASHES,
    MARKER_SIZE,
    MARKERS,
)

Spec = dict[str, Any]

MOST_SERIES = 10  # of a panel, so that they can be told apart
FEW_POINTS = 20  # of a line have markers
_CHANNELS = {"color": "independent", "shape": "independent", "strokeDash": "independent"}


def to_spec(figure: Figure) -> Spec:
    """The figure as one specification with its data, for light backgrounds and two columns."""
    return {
        "description": figure.title,
        "background": BACKGROUND,
        "columns": min(len(figure.panels), 2),
        "spacing": 24,
        "concat": [_panel(figure, panel, place) for place, panel in enumerate(figure.panels)],
        "resolve": {"scale": _CHANNELS, "legend": _CHANNELS},
        "config": CONFIG,
    }


def render(spec: Spec) -> dict[str, bytes]:
    """The figure's files by ending: png, svg, pdf.

    The same specification gives the same png and svg. In a pdf, the order of objects varies.
    """
    import vl_convert  # here, because only this needs it
    from PIL import Image

    svg = _renumbered(vl_convert.vegalite_to_svg(spec))
    image = Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=2))).convert("RGB")
    png = io.BytesIO()
    # 64 colours look the same and take a third of the bytes.
    image.quantize(64, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    return {"png": png.getvalue(), "svg": svg.encode(), "pdf": vl_convert.svg_to_pdf(svg)}


def _renumbered(svg: str) -> str:
    """`svg` with clip paths numbered from 1. Vega counts on from one figure to the next."""
    pattern = r'(?<=id="clip)\d+(?=")|(?<=url\(#clip)\d+(?=\))'
    numbers = {}
    return re.sub(pattern, lambda at: str(numbers.setdefault(at[0], len(numbers) + 1)), svg)


def _panel(figure: Figure, panel: Panel, place: int) -> Spec:
    series = []
    for line in panel.series[:MOST_SERIES]:
        series.append(dataclasses.replace(line, name=_label(line.name)))
    rows = [row for line in series for row in points.rows(line, figure.scattered)]
    title = {"text": _shortened(panel.title)}
    if len(panel.series) > MOST_SERIES:
        title["subtitle"] = f"and {len(panel.series) - MOST_SERIES} more, in the CSV file"
    elif figure.no_mean and any(row["y"] == "" for row in rows):
        title["subtitle"] = f"× {figure.no_mean}"  # noqa: RUF001
    encoding = {**_axes(figure, panel, rows), "color": _by_series(series, [*COLOURS])}
    layers = _spreads(figure, panel, rows) + _lines(figure, panel, series, rows, place)
    types = dict.fromkeys(points.NUMBERS, "number")
    return {
        "title": title,
        "width": 400,
        "height": 230,
        "data": {"values": points.to_csv(rows), "format": {"type": "csv", "parse": types}},
        "layer": [{"encoding": encoding, "layer": layers}, *_references(panel)],
    }


def _axes(figure: Figure, panel: Panel, rows: list[dict[str, Any]]) -> Spec:
    places = sorted({float(row["x"]) for row in rows})
    x_axis = {"tickCount": 8, "format": "~r"}
    if places and places[-1] >= 1000:
        x_axis["labelExpr"] = "datum.value ? format(datum.value, '~s') : '0'"
    x_scale = {"nice": False, "padding": 8 if figure.scattered else 0}
    x_scale |= {"type": "log"} if figure.log_x else {"zero": False}
    if figure.log_x and len(places) <= FEW_POINTS:
        x_axis["values"] = places
    highest = max((float(row.get("high") or row["y"] or 0) for row in rows), default=0.0)
    y_scale = {"zero": True}
    if panel.percent and highest > 0.5:
        y_scale["domainMax"] = 1
    elif highest > panel.y_max:
        y_scale |= {"domainMax": panel.y_max, "nice": False}
    y_axis = {"tickCount": 6}
    if panel.percent:
        y_axis["format"] = "~%"
    return {
        "x": _number("x", figure.x_title, scale=x_scale, axis=x_axis),
        "y": _number("y", panel.y_title, scale=y_scale, axis=y_axis),
    }


def _number(field: str, title: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _by_series(series: list[Series], looks: list[Any]) -> Spec:
    """A channel that takes each series' look by its style, with one legend for all channels."""
    names = [line.name for line in series]
    styles = [line.style for line in series]
    if looks != [*COLOURS]:  # two series of the same colour differ in dashes and markers
        styles = [style + style // len(COLOURS) for style in styles]
    columns = 2 if max(map(len, names)) <= 26 else 1
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": [looks[style % len(looks)] for style in styles]},
        "legend": {"columns": columns, "symbolType": "stroke"},
    }


def _layer(test: str, mark: Spec, encoding: Spec, **more: Any) -> Spec:
    """A layer of the rows for which a test holds."""
    return {"transform": [{"filter": test}], "mark": mark, "encoding": encoding, **more}


def _spreads(figure: Figure, panel: Panel, rows: list[dict[str, Any]]) -> list[Spec]:
    """Bands from the smallest to the largest value, or bars; and the area up to the best so far."""
    layers = []
    if any("high" in row for row in rows):
        mark = {"type": "area", "opacity": 0.18, "clip": True}
        if figure.scattered:
            mark = {"type": "rule", "strokeWidth": 1.4}
        extent = {"y": _number("low", panel.y_title), "y2": {"field": "high"}}
        layers.append(_layer("isValid(datum.low)", mark, extent))
    if any("best" in row for row in rows):
        mark = {"type": "area", "opacity": 0.2}
        test = "isValid(datum.best) && isValid(datum.y)"
        layers.append(_layer(test, mark, {"y2": {"field": "best"}}))
    return layers


def _lines(
    figure: Figure, panel: Panel, series: list[Series], rows: list[dict[str, Any]], place: int
) -> list[Spec]:
    """Lines, and markers that show their values.

    A click on the legend shows one series and fades the others.
    """
    clip = math.isfinite(panel.y_max)
    few = len(rows) <= FEW_POINTS * len(series)
    shown = {"name": f"shown_{place}", "bind": "legend"}
    shown["select"] = {"type": "point", "fields": ["series"]}
    hover = {"name": f"hover_{place}"}
    hover["select"] = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True}
    faded = {"condition": {"param": shown["name"], "value": 1}, "value": 0.1}
    hovered = {"condition": {"param": hover["name"], "empty": False, "value": 1}, "value": 0}
    looks = {"strokeDash": _by_series(series, DASHES)}
    line = {"type": "line", "strokeWidth": 2, "clip": clip}
    has_y = "isValid(datum.y)"
    layers = [_layer(has_y if figure.scattered else "true", line, {**looks, "opacity": faded})]
    if few:  # the legend shows a marker on its line
        looks["shape"] = _by_series(series, [f"M-1,0H1{path}" for path in MARKERS])
    looks |= {"opacity": faded if few else hovered, "tooltip": _tooltip(figure, panel)}
    point = {"type": "point", "filled": True, "size": MARKER_SIZE if few else 60, "clip": clip}
    layers.append(_layer(f"{has_y} && datum.tip == 1", point, looks, params=[shown, hover]))
    return layers + _exceptions(figure, series, rows)


def _exceptions(figure: Figure, series: list[Series], rows: list[dict[str, Any]]) -> list[Spec]:
    """Hollow markers where some run did not fit, and crosses where there is no mean."""
    layers = []
    has_y = "isValid(datum.y)"
    if any(row["hollow"] for row in rows):
        hole = {"type": "point", "filled": True, "size": 14, "opacity": 1}
        test = f"{has_y} && datum.hollow == 1"
        layers.append(_layer(test, hole, {"color": {"value": BACKGROUND}}))
    if figure.no_mean and any(row["y"] == "" for row in rows):
        names = json.dumps([line.name for line in series])
        cross = {"type": "point", "shape": CROSS, "size": 300, "strokeWidth": 2.2, "opacity": 1}
        cross["yOffset"] = {"expr": f"9 * indexof({names}, datum.series)"}
        layers.append(_layer(f"!{has_y}", cross, {"y": {"value": 6}}))
    return layers


def _tooltip(figure: Figure, panel: Panel) -> list[Spec]:
    form = ".2%" if panel.percent else ".4~g"
    return [
        {"field": "series", "type": "nominal"},
        _number("x", figure.x_title, format=",~r"),
        _number("y", panel.y_title, format=form),
        _number("low", "smallest", format=form),
        _number("high", "largest", format=form),
        _number("runs", "runs"),
    ]


def _references(panel: Panel) -> list[Spec]:
    """Dotted horizontal lines with their names."""
    layers = []
    for place, (text, value) in enumerate(panel.references.items()):
        y = {"datum": value, "type": "quantitative", "title": panel.y_title}
        rule = {"type": "rule", "strokeDash": [2, 3], "color": "#767676"}
        label = {"type": "text", "align": "right", "text": text, "color": "#767676"}
        label["dy"] = 9 if place % 2 else -6
        one_row = {"values": [{}]}
        layers.append({"data": one_row, "mark": rule, "encoding": {"y": y}})
        at_right = {"y": y, "x": {"value": "width"}}
        layers.append({"data": one_row, "mark": label, "encoding": at_right})
    return layers


def _label(name: str, most: int = 200) -> str:
    """A series' name for Vega. A changed one gets a hash, so that names stay different.

    Vega cuts names that are too long for a legend, and fails at a cut inside an emoji.
    """
    cleaned = re.sub(r"[^\u0000-\uffff]", "\ufffd", name)[:most]
    if cleaned == name:
        return name
    return f"{cleaned} {hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
