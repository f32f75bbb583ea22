"""The numbers behind Figure 1, its files, and the page that shows them."""

import html.parser
import re
import subprocess
import sys

import numpy as np
import pytest

from rethinking import config, report
from rethinking.config import ConfigError
from rethinking.report import collect, curves
from tests.test_report_collect import make_run


def figure_run(root, setting, seed=0, model="mlp_1x512", **result):
    settings = config.setting(config.cifar10(model), setting)
    return make_run(root, f"figure1:{model}+{setting}", seed, config=settings, **result)


def runs_in(root):
    return collect.collect([root]).runs


def test_learning_curve_has_mean_and_extremes_at_common_steps(tmp_path):
    figure_run(tmp_path, "true_labels", 0, losses=(2.0, 1.0, 0.5))
    figure_run(tmp_path, "true_labels", 1, losses=(3.0, 2.0))
    figure_run(tmp_path, "true_labels", 2, status="diverged", losses=(9.0, None))
    figure_run(tmp_path, "true_labels", 3, status="unfinished", losses=(2.0,))
    curve = curves.learning_curve(runs_in(tmp_path))
    np.testing.assert_array_equal(curve.steps, [0, 390])
    np.testing.assert_array_equal([curve.mean, curve.low, curve.high], [[2.5, 1.5], [2.0, 1.0], [3.0, 2.0]])
    assert curve.seeds == 2


def test_learning_curve_keeps_gaps_and_needs_steps(tmp_path):
    figure_run(tmp_path, "true_labels", status="unfinished", losses=(2.0, None, 0.5))
    np.testing.assert_array_equal(curves.learning_curve(runs_in(tmp_path)).mean, [2.0, np.nan, 0.5])
    assert curves.learning_curve([]) is None


def test_times_to_fit_are_relative_to_the_mean_of_true_labels(tmp_path):
    for seed, steps in enumerate([1000, 3000]):
        figure_run(tmp_path, "true_labels", seed, fit_step=steps)
        figure_run(tmp_path, "random_labels", seed, fit_step=3 * steps)
    figure_run(tmp_path, "corrupt=0.5", 0, fit_step=3000)
    figure_run(tmp_path, "corrupt=0.5", 1, fit_step=None)
    figure_run(tmp_path, "gaussian", 0, fit_step=500)  # not a corruption of labels
    points = curves.relative_times(runs_in(tmp_path))
    assert points == [
        curves.Point(0.0, 1.0, 0.5, 1.5, 2, 2),
        curves.Point(0.5, None, None, None, 2, 1),
        curves.Point(1.0, 3.0, 1.5, 4.5, 2, 2),
    ]
    gaps = curves.on_grid(points, [0.0, 0.2, 1.0])
    assert [(point.p, point.seeds) for point in gaps] == [(0.0, 2), (0.2, 0), (0.5, 2), (1.0, 2)]


def test_without_fitted_true_labels_there_is_no_time_to_compare_with(tmp_path):
    figure_run(tmp_path, "random_labels")
    assert curves.relative_times(runs_in(tmp_path)) == []
    figure_run(tmp_path, "true_labels", fit_step=None)
    assert curves.relative_times(runs_in(tmp_path)) == []


def test_final_errors_leave_out_what_is_unfinished_and_show_what_diverged(tmp_path):
    figure_run(tmp_path, "true_labels", 0, test=0.5)
    figure_run(tmp_path, "true_labels", 1, test=0.25)
    figure_run(tmp_path, "true_labels", 2, status="unfinished")
    figure_run(tmp_path, "random_labels", 0, status="diverged")
    assert curves.final_errors(runs_in(tmp_path)) == [
        curves.Point(0.0, 0.625, 0.5, 0.75, 2, 2), curves.Point(1.0, None, None, None, 1, 0)]


def test_runs_are_chosen_by_config_not_by_name(tmp_path):
    make_run(tmp_path, "mine:odd", config=config.setting(config.cifar10("alexnet"), "shuffled_pixels"))
    for row in ("mlp_1x512+wd", "alexnet+crop", "mlp_1x512", "mlp_1x512+random_labels"):
        make_run(tmp_path, f"table1:{row}")
    plain = curves.plain(runs_in(tmp_path))
    assert {run.row for run in plain} == {"mine:odd", "table1:mlp_1x512", "table1:mlp_1x512+random_labels"}
    models = curves.by_model(plain)
    assert list(models) == ["alexnet", "mlp_1x512"]
    assert list(curves.by_setting(models["mlp_1x512"])) == ["true_labels", "random_labels"]
    assert list(curves.by_setting(models["alexnet"])) == ["shuffled_pixels"]
    assert list(curves.by_data_set(plain)) == [("cifar10", 0)]


def test_settings_that_vary_beside_the_randomization_are_named(tmp_path):
    figure_run(tmp_path, "true_labels")
    figure_run(tmp_path, "random_labels", model="inception")  # another learning rate, as in the paper
    assert curves.mixed_settings(runs_in(tmp_path)) == ""
    other = config.cifar10("mlp_1x512")
    other.update(max_epochs=5, learning_rate=0.5)
    make_run(tmp_path, "mine:a", config=other)
    text = curves.mixed_settings(runs_in(tmp_path))
    assert "max_epochs (" in text and "learning_rate of mlp_1x512" in text


class Page(html.parser.HTMLParser):
    """Collects tags, links and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def test_report_of_a_half_finished_folder(tmp_path):
    runs, output = tmp_path / "runs", tmp_path / "report"
    for seed in range(2):
        for p in range(0, 11, 5):
            figure_run(runs, f"corrupt={p / 10}", seed, fit_step=1000 * (p + 1), test=0.5 - 0.04 * p)
    make_run(runs, "table1:alexnet", status="diverged")
    broken = make_run(runs, "table1:inception")
    (broken / "result.json").write_text("{")
    text = report.build([runs], output)
    assert "### Table 1" in text and "### Figure 1" in text and "Table 4" not in text
    names = {file.name for file in output.iterdir()}
    assert names == {"index.html", "rows.csv", "table1.md", "table3.md", "table4.md", "figure1.md"} | {
        f"figure_1{letter}_cifar10.{kind}" for letter in "abc" for kind in ("png", "svg")}
    assert (output / "figure_1b_cifar10.png").read_bytes().startswith(b"\x89PNG")
    page = Page((output / "index.html").read_text())
    assert page.tags.count("img") == 3
    assert str(broken) in page.text and "Diverged runs" in page.text
    assert "MLP 1x512: no run with p = 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9" in page.text
    for link in page.links:  # pictures are part of the page; the rest leads to configs of the runs
        assert link.startswith("data:image/svg+xml;base64,") or (output / link.replace("%3D", "=").replace(
            "%2B", "+")).resolve().is_file(), link
    assert not re.search(r"(src|href)=.?(https?:)?//|@import|url\(", (output / "index.html").read_text())


def test_report_of_nothing(tmp_path):
    assert report.build([tmp_path], tmp_path / "report") == "No runs.\n"
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert "Runs: none." in page.text and "no runs on cifar10" in page.text and "inception+crop+wd" in page.text
    assert page.tags.count("img") == 0 and not list((tmp_path / "report").glob("*.png"))


def test_markup_in_names_is_shown_not_obeyed(tmp_path):
    settings = config.training()
    settings.model.name = settings.data.name = "</td><script>alert('$x_{')</script>"
    path = make_run(tmp_path / "<b>", "mine:row", config=settings)
    file = path / "config.json"
    file.write_text(file.read_text().replace("mine:row", "../mine:<script>1</script>"))
    make_run(tmp_path / "<b>", "mine:2", config=config.setting(settings, "random_labels"))
    report.build([tmp_path], tmp_path / "report")
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert "script" not in page.tags and "<script>1</script>" in page.text and page.tags.count("img") == 3
    assert not (tmp_path / "mine.md").exists()


def test_output_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        report.build([tmp_path], tmp_path / "file")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--output=o"], "needed: --runs"),
    (["--runs=nowhere", "--output=o"], "--runs=nowhere: no such folder"),
    (["--runs=.", "--outputs=o"], "Unknown command line flag 'outputs'"),
])  # fmt: skip
def test_bad_flags_end_with_exit_code_2(tmp_path, arguments, message):
    root = str(collect.pathlib.Path(report.__file__).parents[2])
    ended = subprocess.run([sys.executable, "-m", "rethinking.report", *arguments], cwd=tmp_path, text=True,
                           capture_output=True, env={"PYTHONPATH": root, "PATH": ""})
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr
