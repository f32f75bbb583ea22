"""Theorem 1, Lemma 1 and Corollary 1, against dense oracles and on real images."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

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
    # The first unit of a layer is the sum of indicator * output over the earlier blocks.
    for j, layer in enumerate(hidden):
        expected = np.where(block < j, targets - memorizer.params["offset"][0, 0], 0)
        np.testing.assert_allclose(layer[:, 0], expected, atol=1e-8)


def float32_residual(points, targets, depth):
    outputs = evaluate(expressivity.memorize(points, targets, depth), points, "float32")
    return np.abs(outputs[:, 0] - targets).max()


def test_float32_reproduces_small_samples_and_depth_extends_them():
    points, targets = digits(100)
    assert float32_residual(points, targets, 2) < 0.5
    points, targets = digits(3000)
    assert float32_residual(points, targets, 32) < float32_residual(points, targets, 2) / 10


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
    whole = [round(entry * 2**32) for entry in a]
    for point, projection_ in zip(points, points @ a, strict=True):
        exact = sum(int(p) * entry for p, entry in zip(point, whole, strict=True))
        assert projection_ == exact / 2**32


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
            "Points 0 and 1 differ, but too little",
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
