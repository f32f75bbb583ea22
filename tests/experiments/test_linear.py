"""Rows of configs/linear.py, small, through the command's own entry."""

import math

import numpy as np
import pytest

from rethinking import cli, experiments, randomize, runs
from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.experiments import linear

DIGITS = (
    "--config.data.name=digits",
    "--config.data.num_train=60",
    "--config.data.num_test=100",
    "--config.features.num_frequencies=150",
    "--config.features.bandwidth=1.0",
)


def run(workdir, row, *overrides, deadline=math.inf):
    config = cli.parse_config([f"--config=configs/linear.py:{row}", *overrides])
    return experiments.run(config, workdir, deadline)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "run", "mnist+fourier", *DIGITS)


def by_name(result):
    return {line["name"]: line for line in result["solutions"]}


def test_every_solution_fits_and_the_ones_that_do_not_generalize_have_larger_norms(result):
    assert (result["status"], result["row"]) == ("complete", "linear:mnist+fourier")
    assert (result["num_examples"], result["num_test"], result["num_features"]) == (60, 100, 300)
    found = by_name(result)
    assert list(found) == ["minimum_norm", "random_start", "random_test_labels"]
    assert {line["train_error"] for line in result["solutions"]} == {0.0}
    smallest = found.pop("minimum_norm")
    for other in found.values():
        assert other["norm"] > 2 * smallest["norm"]
        assert other["test_error"] > smallest["test_error"] + 0.2
    assert found["random_test_labels"]["test_error"] > 0.8


def test_sgd_tends_to_the_closed_forms_at_the_predicted_rate_or_faster(result):
    limits = {"zero": "minimum_norm", "random": "random_start"}
    for start, name in limits.items():
        lines = [line for line in result["sgd"] if line["start"] == start]
        steps = [line["step"] for line in lines]
        assert steps == list(range(0, 220_000, 20_000))
        assert lines[0]["distance"] == lines[0]["predicted"] == 1
        # Rounding keeps the weights some 1e-14 of their norm away from the limit.
        for line in lines:
            assert line["distance"] <= max(line["predicted"], 1e-12)
            expected = result["contraction"] ** (line["step"] / 2)
            assert line["predicted"] == pytest.approx(expected)
        assert lines[-1]["distance"] < 1e-6
        solution = by_name(result)[name]
        assert lines[-1]["norm"] == pytest.approx(solution["norm"], rel=1e-6)
        assert lines[-1]["test_error"] == solution["test_error"]
    first = result["sgd"][0]
    assert (first["start"], first["norm"]) == ("zero", 0.0)


def test_the_hessian_is_the_same_at_all_solutions_and_has_a_null_space(result):
    assert result["hessian_difference"] < 1e-10
    assert result["hessian_difference_at_zero"] > 1e-3
    assert result["null_dimension"] == 300 - 60


def test_pixels_and_random_labels_are_solved_as_numpy_solves_them(tmp_path):
    overrides = [*DIGITS[:1], "--config.data.num_train=20", "--config.data.num_test=15"]
    random = ["--config.randomize.labels=1.0", "--config.randomize.seed=5", "--config.steps=10"]
    result = run(tmp_path / "run", "mnist", *overrides, *random)
    data = arrays.load("digits", None, 20, 0, 15)
    x, z = (split.images.reshape(-1, 64) / 255 for split in (data.train, data.test))
    labels = randomize.corrupt_labels(data.train.labels, data.train.indices, 10, 1.0, 5)
    weights = np.linalg.lstsq(x, np.eye(10)[labels])[0]
    found = by_name(result)["minimum_norm"]
    assert found["norm"] == pytest.approx(np.linalg.norm(weights))
    assert found["train_error"] == 0
    assert found["test_error"] == np.mean((z @ weights).argmax(axis=1) != data.test.labels)


@pytest.mark.parametrize("last", [1, 2, 4, 9])  # before solutions, in the curvature, in SGD
def test_a_run_stops_wherever_it_looks_at_the_clock(last, tmp_path, monkeypatch):
    looks = []

    def must_stop(deadline):
        looks.append(deadline)
        return len(looks) == last

    monkeypatch.setattr(linear.distributed, "must_stop", must_stop)
    assert run(tmp_path / "run", "mnist+fourier", *DIGITS, deadline=math.inf) is None
    assert len(looks) == last
    assert runs.read_result(tmp_path / "run") is None


@pytest.mark.parametrize(
    "overrides, reason",
    [
        (["--config.data.num_train=1000"], "1,100 training and test examples but 300 features"),
        (["--config.features.name=pixels"], "config.features.num_frequencies=150 has no effect"),
        (
            ["--config.features.num_frequencies=32"],
            "160 training and test examples but 64 features",
        ),
        (["--config.features.name=fourrier"], "Did you mean 'fourier'"),
        (["--config.features.bandwidth=0.0"], "config.features.bandwidth"),
        (["--config.steps=9"], "config.steps=9: must be at least 10"),
    ],
)
def test_bad_settings_are_refused(overrides, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        run(tmp_path / "run", "mnist+fourier", *DIGITS, *overrides)


def test_a_run_in_parts_between_looks_at_the_clock_is_the_same(tmp_path, monkeypatch):
    settings = [*DIGITS[:1], "--config.data.num_train=8", "--config.data.num_test=8"]
    settings.append("--config.steps=40")
    whole = run(tmp_path / "whole", "mnist", *settings)
    monkeypatch.setattr(linear, "MOST_UPDATES", 64 * 10 * 2)  # two steps
    monkeypatch.setattr(linear, "MOST_ENTRIES", 64 * 3)  # three rows
    parts = run(tmp_path / "parts", "mnist", *settings)
    for name in ("hessian_difference", "hessian_difference_at_zero"):
        assert parts.pop(name) == pytest.approx(whole.pop(name), rel=1e-6, abs=1e-14)
    assert parts | {"seconds": 0} == whole | {"seconds": 0}


def test_too_little_memory_is_refused_before_the_data_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "load", None)
    monkeypatch.setattr(linear, "COPIES", 1e9)
    with pytest.raises(InputError, match="GB of memory"):
        run(tmp_path / "run", "mnist+fourier", *DIGITS)
