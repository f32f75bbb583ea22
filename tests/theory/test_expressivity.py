"""Theorem 1, Lemma 1 and Corollary 1, against dense oracles and on real images."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from rethinking import config, experiments, runs
from rethinking.errors import InputError
from rethinking.theory import expressivity, projection

QUICK = settings(max_examples=15, deadline=None)


@st.composite
def samples(draw):
    """Distinct points on a grid of any scale and place, any finite targets, scalars or vectors."""
    n, d = draw(st.integers(1, 200)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    unique = np.unique(rng.integers(-500, 501, (n, d)), axis=0)
    points = (rng.permutation(unique) + draw(st.sampled_from([0, 500, -1000]))) * 10.0 ** draw(
        st.integers(-6, 6)
    )
    shape = draw(st.sampled_from([(), (1,), (3,)]))
    targets = draw(
        st.sampled_from([rng.standard_normal, lambda s: np.round(9 * rng.random(s)), np.zeros])
    )
    return points, targets((len(points), *shape)) * 10.0 ** draw(st.integers(-6, 6))


def evaluate(memorizer, points, dtype="float64"):
    return np.concatenate(list(expressivity.evaluate(memorizer, points, dtype)))


def assert_reproduces(memorizer, points, targets):
    residual = np.abs(evaluate(memorizer, points) - targets.reshape(len(points), -1)).max()
    assert residual <= 1e-6 * np.abs(targets).max()


@QUICK
@given(samples())
def test_two_layers_of_2n_plus_d_weights_represent_any_function(sample):
    points, targets = sample
    n, d = points.shape
    memorizer = expressivity.memorize(points, targets)
    assert memorizer.num_weights == d + n + targets.size
    assert (memorizer.module.depth, memorizer.module.width) == (2, n)
    assert_reproduces(memorizer, points, targets)


@QUICK
@given(samples(), st.integers(3, 9))
def test_any_depth_represents_any_function_within_the_stated_size(sample, depth):
    points, targets = sample
    n, d = points.shape
    c = targets.size // n
    memorizer = expressivity.memorize(points, targets, depth)
    assert memorizer.num_weights == d + n + n * c + c + 2 * (depth - 2) + 1
    assert memorizer.module.depth == depth
    assert memorizer.module.width <= math.ceil(n / (depth - 1)) + 2 + c
    assert_reproduces(memorizer, points, targets)


def digits(n=1000, d=20):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, d)).astype(np.uint8), rng.integers(0, 10, n)


def test_weights_solve_the_dense_triangular_system():
    points, targets = digits(60)
    memorizer = expressivity.memorize(points, targets)
    x = np.sort(points @ memorizer.params["a"])
    matrix = np.maximum(x[:, None] - memorizer.params["b"], 0)
    order = np.argsort(points @ memorizer.params["a"])
    dense = scipy.linalg.solve_triangular(matrix, targets[order].astype(float), lower=True)
    np.testing.assert_allclose(memorizer.params["w"][:, 0], dense, rtol=1e-8)
    assert np.triu(matrix, 1).max() == 0  # b_1 < x_1 < b_2 < ...
    assert np.diag(matrix).min() > 0


def test_smallest_eigenvalue_is_lemma_1s():
    for n in (1, 2, 7):
        points, targets = digits(n)
        for depth in (2, 3):
            memorizer = expressivity.memorize(points, targets, depth)
            b = expressivity.memorize(points, targets).params["b"]
            matrix = np.maximum(np.sort(points @ memorizer.params["a"])[:, None] - b, 0)
            assert memorizer.smallest_eigenvalue == pytest.approx(
                np.linalg.eigvals(matrix).real.min(), rel=1e-9
            )


@pytest.mark.parametrize("depth", [3, 8, 32])
def test_hidden_layers_are_relus_of_the_stated_width_and_select_the_right_block(depth):
    points, targets = digits()
    memorizer = expressivity.memorize(points, targets, depth)
    with jax.enable_x64(True):
        variables = {"params": memorizer.params}
        _, state = memorizer.module.apply(
            variables, jnp.asarray(points, float), mutable="intermediates"
        )
    hidden = [np.asarray(layer) for layer in state["intermediates"]["hidden"]]
    assert len(hidden) == depth - 1
    assert max(layer.shape[1] for layer in hidden) == memorizer.module.width
    assert min(layer.min() for layer in hidden) >= 0
    sizes = memorizer.module.blocks
    assert max(sizes) - min(sizes) <= 1
    block = np.empty(len(points), int)
    block[np.argsort(points @ memorizer.params["a"])] = np.repeat(np.arange(depth - 1), sizes)
    for j, layer in enumerate(hidden):  # the sum over earlier blocks of indicator * output
        expected = np.where(block < j, targets - memorizer.params["offset"][0, 0], 0)
        np.testing.assert_allclose(layer[:, 0], expected, atol=1e-8)


def test_float32_reproduces_small_samples_and_depth_extends_them():
    points, targets = digits(100)
    assert (
        np.abs(
            evaluate(expressivity.memorize(points, targets), points, "float32")[:, 0] - targets
        ).max()
        < 0.5
    )
    points, targets = digits(3000)
    errors = [
        np.abs(
            evaluate(expressivity.memorize(points, targets, depth), points, "float32")[:, 0]
            - targets
        ).max()
        for depth in (2, 32)
    ]
    assert errors[1] < errors[0] / 10


def test_the_fitted_direction_has_a_larger_smallest_gap(monkeypatch):
    points, _ = digits(2000, 500)
    gaps = []
    for rounds in (0, 5):
        monkeypatch.setattr(projection, "ROUNDS", rounds)
        x = np.sort(projection.separate(points, np.arange(2000), 0)[1])
        gaps.append(np.diff(x).min() / (x[-1] - x[0]))
    assert gaps[1] > 10 * gaps[0]


def test_projections_of_pixels_are_exact():
    points, targets = digits(50, 3072)
    a = expressivity.memorize(points, targets).params["a"]
    exact = [
        sum(int(p) * round(v * 2**32) for p, v in zip(point, a, strict=True)) / 2**32
        for point in points
    ]
    assert (points @ a).tolist() == exact


def test_repeated_points_are_merged_or_refused():
    points, targets = digits(20)
    twice, same = np.concatenate([points, points]).astype(float), np.tile(targets, 2)
    memorizer = expressivity.memorize(twice, same)
    assert memorizer.num_weights == 2 * 20 + 20
    assert_reproduces(memorizer, twice, same)
    zeros = np.array([[0.0], [-0.0], [1.0]])
    assert expressivity.memorize(zeros, np.array([1, 1, 2])).num_weights == 2 * 2 + 1
    same[27] += 1
    with pytest.raises(InputError, match="Points 7 and 27 are equal but their targets are not"):
        expressivity.memorize(twice, same)


@pytest.mark.parametrize(
    "points, targets, depth, reason",
    [
        (np.zeros((0, 3)), np.zeros(0), 2, "no points"),
        (np.zeros((2, 0)), np.zeros(2), 2, "no points"),
        (np.zeros((2, 3)), np.zeros(3), 2, "2 points but 3 targets"),
        (np.array([[0.0], [np.nan]]), np.zeros(2), 2, r"Points \[1\] are not finite"),
        (np.array([[0.0], [1.0]]), np.array([np.inf, 0]), 2, r"Targets \[0\] are not finite"),
        (np.array([[0.0], [1.0]]), np.zeros(2), 1, "depth=1"),
        (
            np.array([[0.0], [1e-30], [1.0]]),
            np.zeros(3),
            2,
            "Points 0 and 1 differ, but by too little",
        ),
        (np.array([[0.0], [1e308], [-1e308]]) * 1.7, np.zeros(3), 2, "too large"),
    ],
)
def test_bad_samples_are_refused_with_the_reason(points, targets, depth, reason):
    with pytest.raises(InputError, match=reason):
        expressivity.memorize(points, targets, depth)


@pytest.mark.parametrize("n, depth", [(1, 2), (1, 5), (2, 3), (3, 9), (7, 2)])
def test_smallest_samples(n, depth):
    points, targets = digits(n)
    assert_reproduces(expressivity.memorize(points, targets + 1, depth), points, targets + 1)


def settings_of(row, **changes):
    built = config.load_file("configs/expressivity.py").get_config(row)
    built.update_from_flattened_dict(changes)
    return built


def test_a_run_leaves_the_contracts_record(tmp_path):
    built = settings_of(
        "depth=3", **{"data.name": "digits", "data.num_train": 1000, "one_hot": True}
    )
    result = experiments.run(built, tmp_path)
    assert not jax.config.jax_enable_x64  # float64 was switched on inside alone
    assert (
        json.loads((tmp_path / "result.json").read_text())
        == result
        == experiments.run(built, tmp_path)
    )
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
    assert (result["status"], result["train_error"], result["depth"], result["width"]) == (
        "complete",
        0,
        3,
        512,
    )
    assert result["num_weights"] == 64 + 1000 + 10_000 + 10 + 2 + 1
    assert 0 < result["max_residual"] < 1e-6


def test_a_run_stops_at_its_deadline_and_can_be_begun_anew(tmp_path):
    built = settings_of("depth=2", **{"data.name": "digits", "data.num_train": 0})
    assert experiments.run(built, tmp_path, deadline=0.0) is None
    assert runs.read_result(tmp_path) is None
    assert experiments.run(built, tmp_path)["train_error"] == 0


@pytest.mark.parametrize("depth", [2, 3, 8, 32])
def test_ten_thousand_cifar10_images_with_random_labels(tmp_path, tfds_dir, depth):
    result = experiments.run(
        settings_of(f"depth={depth}", **{"data.data_dir": tfds_dir("cifar10")}), tmp_path
    )
    assert (result["train_error"], result["depth"]) == (0, depth)
    assert result["max_residual"] < 1e-5
    assert result["width"] <= math.ceil(10_000 / (depth - 1)) + (3 if depth > 2 else 0)
    assert result["num_weights"] == 20_000 + 3072 + (2 * (depth - 2) + 2 if depth > 2 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name, d", [("cifar10", 3072), ("mnist", 784)])
@pytest.mark.parametrize("one_hot", [False, True])
def test_theorem_1_on_all_images(tmp_path, tfds_dir, name, d, one_hot):
    row = name + "+one_hot" * one_hot
    result = experiments.run(settings_of(row, **{"data.data_dir": tfds_dir(name)}), tmp_path)
    n = result["num_points"]
    assert result["num_weights"] == d + n + n * (10 if one_hot else 1)
    assert result["train_error"] == 0
    assert result["max_residual"] < 1e-3
    assert result["build_seconds"] + result["evaluate_seconds"] < 60


def test_the_drawing_is_of_the_network_and_of_lemma_1s_matrix():
    rng = np.random.default_rng(8)
    points, labels = rng.normal(size=(8, 5)), rng.integers(0, 10, 8)
    drawing = experiments.expressivity.draw(points, labels[:, None], seed=0)
    there = [place for place in drawing if place["point"]]
    assert [place["point"] for place in drawing] == [
        False,
        True,
    ] * 8  # a threshold before each point
    assert sorted(round(place["output"], 9) for place in there) == sorted(labels)
    matrix = np.array([place["units"] for place in there])
    np.testing.assert_array_equal(matrix > 0, np.tri(8) > 0)
    params = expressivity.memorize(points, labels).params
    np.testing.assert_allclose(
        matrix @ params["w"][:, 0], labels[np.argsort(points @ params["a"])], atol=1e-9
    )
    x, outputs = (np.array([place[name] for place in drawing]) for name in ("x", "output"))
    middle = (
        points @ params["a"]
    ).mean()  # anywhere: the network is linear between the places of the drawing
    middle_output = np.maximum(middle - params["b"], 0) @ params["w"][:, 0]
    assert np.interp(middle - params["b"][0], x, outputs) == pytest.approx(middle_output)
