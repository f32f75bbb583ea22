"""Figures as Vega-Lite specifications, and the files made of them."""

import csv
import io
import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from rethinking import experiments
from rethinking.report import collect, figures, formats, vega
from rethinking.report.curves import Figure, Panel, Series, Trace
from rethinking.settings import cifar10
from tests.report.runs import make_run


def made(root):
    return {figure.name: figure for figure in figures.make(collect.collect([root]))}


def rows_of(figure, panel=0):
    """The data of a panel, as Vega-Lite reads it."""
    data = vega.to_spec(figure)["concat"][panel]["data"]
    return list(csv.DictReader(io.StringIO(data["values"])))


def layers(figure, panel=0):
    return vega.to_spec(figure)["concat"][panel]["layer"][0]["layer"]


def figure_of(series, **more):
    panel = Panel("panel", "y", series, **more)
    return Figure("name", "title", "short", "x", [panel], "caption")


def line(name, x, *ys, style=0, status="complete"):
    traces = [Trace("", status, np.array(x, float), np.array(y, float)) for y in ys]
    return Series(name, style, traces)


def test_the_data_are_means_extremes_and_numbers_of_runs():
    figure = figure_of([line("a, b", [0, 10], [1, 0.5], [3, 0.5]), line("c", [5], [7])])
    found = [
        [row[name] for name in ("series", "x", "y", "low", "high", "runs")]
        for row in rows_of(figure)
    ]
    assert found == [
        ["a, b", "0", "2", "1", "3", "2"],
        ["a, b", "10", "0.5", "", "", "2"],
        ["c", "5", "7", "", "", "1"],
    ]


def test_the_same_statistics_stand_in_figure_1c(all_figures):
    # 0.86 + 0.004 seed is the accuracy on true labels; 0.4 of the way to 0.1 is lost.
    errors = [1 - (best - 0.4 * (best - 0.1)) for best in (0.86, 0.864, 0.868)]
    found = rows_of(all_figures["figure_1c_cifar10"])
    (row,) = [row for row in found if (row["series"], row["x"]) == ("Inception", "0.4")]
    assert float(row["y"]) == pytest.approx(np.mean(errors), abs=1e-5)
    assert float(row["low"]) == pytest.approx(min(errors), abs=1e-5)
    assert float(row["high"]) == pytest.approx(max(errors), abs=1e-5)


def test_bands_for_lines_and_bars_for_scattered_points(all_figures):
    marks = {
        name: [layer["mark"]["type"] for layer in layers(all_figures[name])]
        for name in ("figure_1a_cifar10", "figure_1c_cifar10")
    }
    assert marks["figure_1a_cifar10"] == ["area", "line", "point"]
    assert marks["figure_1c_cifar10"][:3] == ["rule", "line", "point"]


def test_a_point_whose_runs_did_not_all_fit_has_a_cross_or_is_hollow(all_figures):
    at = ("AlexNet", "0.8")  # one seed did not fit
    times, errors = all_figures["figure_1b_cifar10"], all_figures["figure_1c_cifar10"]
    (time,) = [row for row in rows_of(times) if (row["series"], row["x"]) == at]
    assert time["y"] == "" and layers(times)[-1]["mark"]["shape"] == vega.CROSS
    assert "not every seed fitted" in vega.to_spec(times)["concat"][0]["title"]["subtitle"]
    (error,) = [row for row in rows_of(errors) if (row["series"], row["x"]) == at]
    assert error["hollow"] == "1" and error["y"]
    others = [row["hollow"] for row in rows_of(errors) if (row["series"], row["x"]) != at]
    assert {*others} == {"0"}


def test_long_lines_are_thinned_to_every_kth_point_and_the_last():
    found = rows_of(figure_of([line("a", range(1000), range(1000))]))
    assert [row["x"] for row in found] == [*map(str, range(0, 1000, 5)), "999"]
    assert sum(row["tip"] == "1" for row in found) == 35


def test_axes_end_at_a_whole_at_the_peak_allowed_or_at_the_data():
    def y_scale(*ys, **more):
        panel = vega.to_spec(figure_of([line("a", range(len(ys)), ys)], **more))["concat"][0]
        return panel["layer"][0]["encoding"]["y"]["scale"]

    assert y_scale(0.2, 0.7, percent=True)["domainMax"] == 1
    assert "domainMax" not in y_scale(0.2, 0.3, percent=True)
    assert y_scale(2.5, 300, y_max=7.5)["domainMax"] == 7.5
    assert "domainMax" not in y_scale(2.5, 7, y_max=7.5)


def test_series_of_one_colour_have_other_dashes_and_markers():
    colours = len(vega.COLOURS)
    figure = figure_of([line("a", [1], [1], style=0), line("b", [1], [2], style=colours)])
    spec = vega.to_spec(figure)["concat"][0]["layer"][0]
    channels = spec["encoding"] | spec["layer"][-1]["encoding"]
    assert len({*channels["color"]["scale"]["range"]}) == 1
    for channel in ("shape", "strokeDash"):
        first, second = channels[channel]["scale"]["range"]
        assert first != second


def test_series_beyond_the_most_are_left_to_the_csv_file(tmp_path):
    for rate in range(1, vega.MOST_SERIES + 4):
        settings = cifar10("mlp_1x512")
        settings.learning_rate = rate / 100
        make_run(tmp_path, f"mine:rate={rate}", config=settings)
    figure = made(tmp_path)["curves_mine"]
    title = vega.to_spec(figure)["concat"][0]["title"]
    assert title["subtitle"] == "and 3 more, in the CSV file"
    assert len({row["series"] for row in rows_of(figure)}) == vega.MOST_SERIES
    table = csv.DictReader(io.StringIO(formats.figure_to_csv(figure)))
    assert len({row["series"] for row in table}) == vega.MOST_SERIES + 3


def test_the_csv_file_has_every_point_of_every_run(all_figures):
    text = formats.figure_to_csv(all_figures["figure_1c_cifar10"])
    table = csv.DictReader(io.StringIO(text))
    found = [row for row in table if row["series"] == "Inception" and row["x"] == "0.4"]
    names = [(row["run"], row["status"]) for row in found]
    assert names == [(f"seed {seed}", "complete") for seed in range(3)]
    assert [float(row["y"]) for row in found] == pytest.approx([0.444, 0.4416, 0.4392])


def test_the_same_specification_gives_the_same_pictures(all_figures):
    spec = vega.to_spec(all_figures["figure_stability_cifar10_5000"])
    first, second = vega.render(spec), vega.render(json.loads(json.dumps(spec)))
    assert b'id="clip1"' in first["svg"] and b"url(#clip1)" in first["svg"]
    assert first["svg"] == second["svg"] and first["png"] == second["png"]
    assert first["pdf"].startswith(b"%PDF")
    width = Image.open(io.BytesIO(first["png"])).width
    svg = xml.etree.ElementTree.fromstring(first["svg"])
    assert width == pytest.approx(2 * float(svg.get("width")), abs=2)


def test_names_are_drawn_literally(tmp_path):
    name = "$x_{ <script> \\frac & ' \" end"
    settings = experiments.defaults("training")
    settings.model.name = settings.data.name = name
    make_run(tmp_path, "mine:1", config=settings)
    figure = made(tmp_path)["curves_mine"]
    svg = xml.etree.ElementTree.fromstring(vega.render(vega.to_spec(figure))["svg"])
    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith(name) for text in texts), texts
    assert not [*svg.iter("{http://www.w3.org/2000/svg}script")]


def test_a_line_is_drawn_where_its_values_are():
    figure = figure_of([line("a", range(30), [*range(29), 100])], percent=False)
    svg = vega.render(vega.to_spec(figure))["svg"].decode()
    (path,) = re.findall(r'mark-line[^>]*>.*?<path[^>]* d="([^"]+)"', svg, re.DOTALL)[:1]
    points = re.findall(r"[ML]([-\d.]+),([-\d.]+)", path)
    assert len(points) == 30
    # The x axis has 400 pixels from 0 to 29, the y axis 230 from 100 down to 0.
    for (x, y), (place, value) in zip(points, enumerate([*range(29), 100]), strict=True):
        assert float(x) == pytest.approx(400 * place / 29, abs=0.1)
        assert float(y) == pytest.approx(230 * (1 - value / 100), abs=0.1)
