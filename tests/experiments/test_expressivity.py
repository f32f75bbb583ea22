"""Rows of configs/expressivity.py through the command's own entry."""

import json
import math

import jax
import numpy as np
import pytest

from rethinking import config, experiments, runs
from rethinking.theory import expressivity


def settings_of(row, **changes):
    built = config.load_file("configs/expressivity.py").get_config(row)
    built.update_from_flattened_dict(changes)
    return built


def test_a_run_leaves_the_contracts_record(tmp_path):
    built = settings_of(
        "depth=3", **{"data.name": "digits", "data.num_train": 1000, "one_hot": True}
    )
    result = experiments.run(built, tmp_path)
    assert not jax.config.jax_enable_x64  # float64 is on only inside the run
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert experiments.run(built, tmp_path) == result
    assert {
        "experiment",
        "row",
        "seed",
        "status",
        "seconds",
        "device",
        "num_devices",
        "jax",
        "revision",
        "config_digest",
        "train_error_float32",
        "max_residual_float32",
    } <= result.keys()
    assert (result["status"], result["train_error"]) == ("complete", 0)
    assert (result["depth"], result["width"]) == (3, 512)
    assert result["num_weights"] == 64 + 1000 + 10_000 + 10 + 2 + 1
    assert 0 < result["max_residual"] < 1e-6


def test_a_run_stops_at_its_deadline_and_can_be_begun_anew(tmp_path):
    built = settings_of("depth=2", **{"data.name": "digits", "data.num_train": 0})
    assert experiments.run(built, tmp_path, deadline=0.0) is None
    assert runs.read_result(tmp_path) is None
    assert experiments.run(built, tmp_path)["train_error"] == 0


@pytest.mark.parametrize(
    "depth", [2, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (3, 8)), 32]
)
def test_ten_thousand_cifar10_images_with_random_labels(tmp_path, tfds_dir, depth):
    result = experiments.run(
        settings_of(f"depth={depth}", **{"data.data_dir": tfds_dir("cifar10")}), tmp_path
    )
    assert (result["train_error"], result["depth"]) == (0, depth)
    assert result["max_residual"] < 1e-5
    width, num_weights = math.ceil(10_000 / (depth - 1)), 20_000 + 3072
    if depth > 2:
        width += 3
        num_weights += 2 * (depth - 2) + 2
    assert result["width"] <= width
    assert result["num_weights"] == num_weights


@pytest.mark.slow
@pytest.mark.parametrize("name, d", [("cifar10", 3072), ("mnist", 784)])
@pytest.mark.parametrize("one_hot", [False, True])
def test_theorem_1_on_all_images(tmp_path, tfds_dir, name, d, one_hot):
    row = f"{name}+one_hot" if one_hot else name
    result = experiments.run(settings_of(row, **{"data.data_dir": tfds_dir(name)}), tmp_path)
    n = result["num_points"]
    assert result["num_weights"] == d + n + n * (10 if one_hot else 1)
    assert result["train_error"] == 0
    assert result["max_residual"] < 1e-3
    assert result["build_seconds"] + result["evaluate_seconds"] < 60


def test_the_drawing_shows_the_network_and_the_matrix_of_lemma_1():
    rng = np.random.default_rng(8)
    points, labels = rng.normal(size=(8, 5)), rng.integers(0, 10, 8)
    drawing = experiments.expressivity.draw(points, labels[:, None], seed=0)
    there = [place for place in drawing if place["point"]]
    # There is a threshold before each point.
    assert [place["point"] for place in drawing] == [False, True] * 8
    assert sorted(round(place["output"], 9) for place in there) == sorted(labels)
    matrix = np.array([place["units"] for place in there])
    np.testing.assert_array_equal(matrix > 0, np.tri(8) > 0)
    params = expressivity.memorize(points, labels).params
    np.testing.assert_allclose(
        matrix @ params["w"][:, 0], labels[np.argsort(points @ params["a"])], atol=1e-9
    )
    x, outputs = (np.array([place[name] for place in drawing]) for name in ("x", "output"))
    # Any place would do: the network is linear between the places of the drawing.
    middle = (points @ params["a"]).mean()
    middle_output = np.maximum(middle - params["b"], 0) @ params["w"][:, 0]
    assert np.interp(middle - params["b"][0], x, outputs) == pytest.approx(middle_output)
