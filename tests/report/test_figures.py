"""The numbers behind the figures."""

import numpy as np
import pytest

from rethinking import experiments, rows
from rethinking.report import collect, curves, figures, training_figures
from rethinking.report.curves import summary
from tests.report.runs import make_run, training_lines


def figure_run(root, setting, seed=0, model="mlp_1x512", **result):
    settings = rows.setting(rows.cifar10(model), setting)
    return make_run(root, f"figure1:{model}+{setting}", seed, config=settings, **result)


def runs_in(root):
    return collect.collect([root]).runs


def made(root):
    """The figures by name."""
    return {figure.name: figure for figure in figures.make(collect.collect([root]))}


def series_of(panel):
    return {series.name: series for series in panel.series}


def assert_curve(curve, x, mean, low, high, num):
    for name, values in {"x": x, "mean": mean, "low": low, "high": high, "num": num}.items():
        np.testing.assert_allclose(getattr(curve, name), values, err_msg=name)


def test_learning_curve_has_mean_and_extremes_at_common_steps(tmp_path):
    figure_run(tmp_path, "true_labels", 0, losses=(2.0, 1.0, 0.5))
    figure_run(tmp_path, "true_labels", 1, losses=(3.0, 2.0))
    figure_run(tmp_path, "true_labels", 2, status="diverged", losses=(9.0, None))
    figure_run(tmp_path, "true_labels", 3, status="unfinished", losses=(2.0,))
    (line,) = curves.learning_curves({"loss": runs_in(tmp_path)})
    assert_curve(summary(line), [0, 390], [2.5, 1.5], [2.0, 1.0], [3.0, 2.0], [2, 2])
    assert [(trace.label, trace.status, len(trace.x)) for trace in line.traces] == [
        ("seed 0", "complete", 3),
        ("seed 1", "complete", 2),
        ("seed 2", "diverged", 2),
        ("seed 3", "unfinished", 1),
    ]


def test_learning_curve_keeps_gaps_and_skips_lines_without_the_field(tmp_path):
    lines = [
        {"step": 0, "train_loss": 2.0, "test_accuracy": 0.1},
        {"step": 5, "test_accuracy": 0.2},
        {"step": 10, "train_loss": None},
        {"train_loss": 7.0},
        {"step": 20, "train_loss": 0.5},
    ]
    figure_run(tmp_path, "true_labels", status="unfinished", lines=lines)
    runs = runs_in(tmp_path)
    (line,) = curves.learning_curves({"none": [], "loss": runs})
    assert (line.name, line.style) == ("loss", 1)
    curve = summary(line)
    np.testing.assert_array_equal([curve.x, curve.mean], [[0, 10, 20], [2.0, np.nan, 0.5]])
    assert curves.learning_curves({"loss": runs}, "no such field") == []


def test_a_passing_peak_of_the_loss_leaves_the_panel(tmp_path):
    figure_run(tmp_path / "peak", "true_labels", losses=(2.5, 300.0, 0.5))
    figure_run(tmp_path / "peak", "random_labels", losses=(2.0, 2.0, 1.0))
    figure_run(tmp_path / "none", "true_labels", losses=(2.5, 7.0, 0.5))
    peak, none = (made(tmp_path / name) for name in ("peak", "none"))
    for name in ("figure_1a_cifar10", "curves_figure1"):
        assert [figures[name].panels[0].y_max for figures in (peak, none)] == [7.5, 7.5]
        assert ["three times" in figures[name].caption for figures in (peak, none)] == [True, False]
    assert peak["figure_1c_cifar10"].panels[0].y_max == np.inf


def test_times_to_fit_are_relative_to_the_mean_of_true_labels(tmp_path):
    for seed, steps in enumerate([1000, 3000]):
        figure_run(tmp_path, "true_labels", seed, fit_step=steps)
        figure_run(tmp_path, "random_labels", seed, fit_step=3 * steps)
    figure_run(tmp_path, "corrupt=0.5", 0, fit_step=3000)
    figure_run(tmp_path, "corrupt=0.5", 1, fit_step=None)
    figure_run(tmp_path, "gaussian", 0, fit_step=500)  # not a corruption of labels
    curve = summary(
        curves.Series("", 0, training_figures.relative_times(runs_in(tmp_path))), scattered=True
    )
    nan = np.nan
    assert_curve(curve, [0, 0.5, 1], [1.0, nan, 3.0], [0.5, nan, 1.5], [1.5, nan, 4.5], [2, 2, 2])
    np.testing.assert_array_equal(curve.fitted, [2, 1, 2])


def test_without_fitted_true_labels_there_is_no_time_to_compare_with(tmp_path):
    figure_run(tmp_path, "random_labels")
    assert training_figures.relative_times(runs_in(tmp_path)) == []
    figure_run(tmp_path, "true_labels", fit_step=None)
    assert training_figures.relative_times(runs_in(tmp_path)) == []
    figure_run(tmp_path, "true_labels", 1, status="diverged", fit_step=100)
    assert training_figures.relative_times(runs_in(tmp_path)) == []
    figure_run(tmp_path, "true_labels", 2, fit_step=500)
    figure_run(tmp_path, "random_labels", 1, fit_step=1500)
    times = training_figures.relative_times(runs_in(tmp_path))
    assert sorted(trace.y[0] for trace in times if trace.fitted) == [1.0, 3.0, 7.8]


def test_final_errors_leave_out_what_is_unfinished_and_show_what_diverged(tmp_path):
    figure_run(tmp_path, "true_labels", 0, test=0.5)
    figure_run(tmp_path, "true_labels", 1, test=0.25)
    figure_run(tmp_path, "true_labels", 2, status="unfinished")
    figure_run(tmp_path, "random_labels", 0, status="diverged")
    curve = summary(
        curves.Series("", 0, training_figures.final_errors(runs_in(tmp_path))), scattered=True
    )
    assert_curve(curve, [0, 1], [0.625, np.nan], [0.5, np.nan], [0.75, np.nan], [2, 1])


def test_runs_are_chosen_by_config_not_by_name(tmp_path):
    make_run(tmp_path, "mine:odd", config=rows.setting(rows.cifar10("alexnet"), "shuffled_pixels"))
    for row in ("mlp_1x512+wd", "alexnet+crop", "mlp_1x512", "mlp_1x512+random_labels"):
        make_run(tmp_path, f"table1:{row}")
    plain = curves.plain(runs_in(tmp_path))
    assert {run.row for run in plain} == {
        "mine:odd",
        "table1:mlp_1x512",
        "table1:mlp_1x512+random_labels",
    }
    models = curves.by_model(plain)
    assert list(models) == ["alexnet", "mlp_1x512"]
    assert list(curves.by_setting(models["mlp_1x512"])) == ["true_labels", "random_labels"]
    assert list(curves.by_setting(models["alexnet"])) == ["shuffled_pixels"]
    assert list(curves.by_data_set(plain)) == [("cifar10", 0)]


def test_settings_and_revisions_that_vary_are_named(tmp_path):
    ignored = ("model.name", *curves.RANDOMIZED)
    figure_run(tmp_path, "true_labels")
    figure_run(tmp_path, "random_labels", model="inception")  # has another learning rate
    assert curves.mixed_settings(runs_in(tmp_path), ignored) == ""
    other = rows.cifar10("mlp_1x512")
    other.update(max_epochs=5, learning_rate=0.5)
    make_run(tmp_path, "mine:a", config=other, revision="def")
    text = curves.mixed_settings(runs_in(tmp_path), ignored)
    assert text == (
        "These runs differ in other settings too: max_epochs (100 or 5), "
        "learning_rate of MLP 1x512."
    )
    figure = made(tmp_path)["figure_1a_cifar10"]
    assert text in figure.caption and figure.revisions == ["abc", "def"]


def test_without_runs_there_is_no_figure_and_every_plot_is_named(tmp_path):
    assert made(tmp_path) == {}
    assert figures.not_run([]) == [plot.title for plot in figures.PLOTS]


def test_plots_with_runs_are_not_among_those_without(all_figures):
    assert figures.not_run(list(all_figures.values())) == []


def test_figure_2_has_training_and_test_accuracy_and_shades_the_best_of_the_latter(all_figures):
    (panel,) = all_figures["figure_2a_imagenet2012"].panels
    lines = series_of(panel)
    assert list(lines) == [
        f"{row}, {part}" for row in ("aug+dropout+wd", "aug", "wd") for part in ("train", "test")
    ]
    assert [line.shade_best for line in lines.values()] == [False, True] * 3
    # In the middle of an epoch these runs have a test accuracy only.
    assert [len(summary(lines[f"aug, {part}"]).x) for part in ("train", "test")] == [11, 21]
    (panel,) = all_figures["figure_2b_cifar10"].panels
    assert list(series_of(panel)) == [
        f"{name}, {part}"
        for name in ("Inception", "Inception without BN")
        for part in ("train", "test")
    ]


def test_runs_with_other_settings_have_lines_of_their_own(tmp_path):
    for batch_size, test in ((128, 0.5), (64, 0.25)):
        for seed in range(2):
            for name in ("true_labels", "random_labels"):
                config = rows.setting(rows.cifar10("inception"), name)
                config.batch_size = batch_size
                make_run(
                    tmp_path / f"{batch_size}",
                    f"figure1:inception+{name}",
                    seed,
                    config=config,
                    test=test,
                    lines=training_lines(0.1, test),
                )
    figures = made(tmp_path)
    (panel,) = figures["figure_1a_cifar10"].panels
    assert list(series_of(panel)) == [
        f"{name} labels, batch_size={size}" for name in ("true", "random") for size in (128, 64)
    ]
    assert {line.style for line in panel.series} == {0, 1, 2, 3}
    (panel,) = figures["figure_1c_cifar10"].panels
    assert panel.title == "Test error, CIFAR10"
    errors = {
        name: summary(line, scattered=True).mean.tolist() for name, line in series_of(panel).items()
    }
    assert errors == {
        "Inception, batch_size=128": [0.5, 0.5],
        "Inception, batch_size=64": [0.75, 0.75],
    }
    (panel,) = figures["figure_2b_cifar10"].panels
    assert [summary(line).num[0] for line in panel.series] == [2] * 4


def test_asynchronous_workers_are_compared_and_kept_out_of_other_figures(all_figures):
    loss, accuracy = all_figures["figure_async_cifar10"].panels
    assert (loss.y_title, accuracy.y_title) == ("training loss", "test accuracy")
    assert list(series_of(loss)) == ["1 worker", "8 workers", "50 workers"]
    assert (
        summary(series_of(loss)["50 workers"]).mean[-1]
        > 0.5
        > summary(series_of(loss)["1 worker"]).mean[-1]
    )
    (panel,) = [
        panel for panel in all_figures["figure_1a_cifar10"].panels if "MLP 1x512" in panel.title
    ]
    assert [len(line.traces) for line in panel.series] == [3] * 5  # the seeds of figure1's own rows


def test_theorem_1s_network_is_drawn_piece_by_piece(all_figures):
    network, units = all_figures["figure_construction_cifar10"].panels
    curve = summary(network.series[0], True)
    assert_curve(curve, [0, 1, 1.125, 2], *[[0, 3, 3.375, 7]] * 3, [1] * 4)
    assert curve.fitted.tolist() == [0, 1, 0, 1]  # thresholds are hollow
    lines = [summary(line, True) for line in units.series]
    assert [(line.x.tolist(), line.mean.tolist()) for line in lines] == [
        ([0, 1, 1.125, 2], [0, 1, 1.125, 2]),
        ([1.125, 2], [0, 0.875]),
    ]  # each from its threshold


def test_random_filters_with_and_without_a_ridge(all_figures):
    figure = all_figures["figure_filters_cifar10"]
    (panel,) = figure.panels
    # (0.17 + 60 / filters + 0.003 seed) over seeds 0, 1, 2
    curve = summary(series_of(panel)["no ridge"], figure.scattered)
    assert_curve(
        curve,
        [1000, 4000, 16_000, 32_000],
        [0.233, 0.188, 0.17675, 0.174875],
        [0.23, 0.185, 0.17375, 0.171875],
        [0.236, 0.191, 0.17975, 0.177875],
        [3] * 4,
    )
    assert summary(series_of(panel)["with a ridge"], True).mean[-1] == pytest.approx(0.154875)
    assert panel.references == {"paper": 0.17, "paper, with a ridge": 0.15}


def test_rademacher_complexity_of_networks_and_of_linear_models(all_figures):
    (panel,) = all_figures["figure_rademacher_cifar10"].panels
    lines = series_of(panel)
    assert list(lines) == [
        "AlexNet",
        "MLP 1x512",
        "linear, mean square 1",
        "linear, unit ball",
        "Gaussian kernel, unit ball",
    ]
    # draws 0, 1, 2 of each of three seeds: 1 - draw n / 40,000
    assert_curve(
        summary(lines["MLP 1x512"]),
        [125, 250, 500, 1000],
        [0.996875, 0.99375, 0.9875, 0.975],
        [0.99375, 0.9875, 0.975, 0.95],
        [1] * 4,
        [9] * 4,
    )
    curve = summary(lines["linear, mean square 1"])
    assert curve.x[-1] == 4000 and curve.mean[-1] == pytest.approx((300 / 4000) ** 0.5)
    assert (
        len(lines["linear, mean square 1"].traces) == 3
    )  # one per seed, though two networks have it


def test_stability_against_steps_for_true_and_random_labels(all_figures):
    largest, mean = all_figures["figure_stability_cifar10_5000"].panels
    assert list(series_of(largest)) == ["MLP 1x512, true labels", "MLP 1x512, random labels"]
    curve = summary(series_of(largest)["MLP 1x512, true labels"])
    # after 15 epochs of 157 steps: (1 + r) 15 / 4 for replacements r = 0, 1, 2
    assert (curve.x[-1], curve.low[-1], curve.mean[-1], curve.high[-1]) == (2355, 3.75, 7.5, 11.25)
    assert "mean change" in mean.y_title


def test_lines_of_metrics_that_are_no_measurements_are_passed_over(tmp_path):
    settings = rows.named(experiments.defaults("complexity"), "complexity", "rademacher+mlp_1x512")
    lines = [
        {"draw": None, "num_train": 5},
        {"draw": "a"},
        {"draw": [1]},
        {},
        {"draw": 0, "num_train": 5, "correlation": 0.5},
    ]
    make_run(tmp_path, "complexity:rademacher+mlp_1x512", config=settings, lines=lines)
    (panel,) = made(tmp_path)["figure_rademacher_digits"].panels
    assert_curve(summary(panel.series[0]), [5], [0.5], [0.5], [0.5], [1])


def test_every_experiment_that_trains_has_learning_curves(all_figures):
    names = {panel.title for panel in all_figures["curves_figure1"].panels}
    assert "Inception, CIFAR10" in names and len(all_figures["curves_figure1"].panels) == 2 * len(
        names
    )
    alexnet = all_figures["curves_table1"].panels[0].series  # two rows of which are Figure 1's, too
    assert [(line.name, [trace.status for trace in line.traces]) for line in alexnet] == [
        ("alexnet", ["complete"] * 3),
        ("alexnet+crop", ["unfinished"]),
        ("alexnet+random_labels", ["complete"] * 3),
    ]


def test_learning_curves_of_other_settings_are_apart(tmp_path):
    for weight_decay in (0.0, 0.001):
        settings = rows.cifar10("mlp_1x512")
        settings.weight_decay = weight_decay
        for seed in range(2):
            folder = tmp_path / f"{weight_decay}"
            make_run(folder, "table1:mlp_1x512", seed, config=settings, losses=(2.3, weight_decay))
    lines = series_of(made(tmp_path)["curves_table1"].panels[0])
    assert list(lines) == ["mlp_1x512", "mlp_1x512, weight_decay=0.001"]
    for line, last in zip(lines.values(), (0.0, 0.001), strict=True):
        assert_curve(summary(line), [0, 390], *[[2.3, last]] * 3, [2, 2])
