"""Section 5: closed forms beside literal SGD, NumPy and JAX's own differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.kernels import gram
from rethinking.theory import linear


def problem(n=20, d=50, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 20), st.integers(0, 10**6))
def test_minimum_norm_is_numpys(n, extra, seed):
    features, targets = problem(n, n + 5 + extra, seed)
    assert (
        relative(linear.minimum_norm(features, targets), np.linalg.lstsq(features, targets)[0])
        < 1e-8
    )
    both = np.stack([targets, 2 * targets], axis=1)
    assert relative(linear.minimum_norm(features, both), np.linalg.pinv(features) @ both) < 1e-8


def test_sgd_from_zero_finds_the_minimum_norm_solution():
    features, targets = problem()
    found = linear.sgd(features, targets, np.zeros(50), 20_000)
    assert relative(found, np.linalg.lstsq(features, targets)[0]) < 1e-6
    assert not jax.config.jax_enable_x64


def test_sgd_from_elsewhere_keeps_the_part_outside_the_span():
    features, targets = problem()
    start = np.random.default_rng(1).standard_normal(50)
    found = linear.sgd(features, targets, start, 20_000)
    np.testing.assert_allclose(features @ found, targets, atol=1e-9)
    inside = linear.span_part(features, start)
    np.testing.assert_allclose(inside, np.linalg.pinv(features) @ features @ start, atol=1e-12)
    np.testing.assert_allclose(found - linear.span_part(features, found), start - inside, atol=1e-9)
    assert relative(found, linear.minimum_norm(features, targets) + start - inside) < 1e-6
    assert np.linalg.norm(found) > 1.2 * np.linalg.norm(linear.minimum_norm(features, targets))


def test_one_step_is_the_papers_update():
    features, targets = problem(n=1)
    start = np.ones(50)
    error = features[0] @ start - targets[0]
    expected = start - linear.step_size(features) * error * features[0]
    np.testing.assert_allclose(linear.sgd(features, targets, start, 1), expected)


def test_sgd_with_several_outputs_is_sgd_of_each_in_the_same_order():
    features, targets = problem()
    both, start = np.stack([targets, targets[::-1]], axis=1), np.ones((50, 2))
    found = linear.sgd(features, both, start, 100, seed=3)
    for column in range(2):
        alone = linear.sgd(features, both[:, column], start[:, column], 100, seed=3)
        np.testing.assert_allclose(found[:, column], alone, rtol=1e-12)


def test_sgd_can_be_taken_up_where_it_ended():
    features, targets = problem()
    once = linear.sgd(features, targets, np.ones(50), 60, seed=3)
    half = linear.sgd(features, targets, np.ones(50), 30, seed=3)
    np.testing.assert_array_equal(linear.sgd(features, targets, half, 30, seed=3, first=30), once)
    assert relative(linear.sgd(features, targets, half, 30, seed=3), once) > 1e-3


def test_contraction_bounds_the_mean_of_a_steps_squared_distance():
    features, targets = problem()
    limit = linear.minimum_norm(features, targets)
    # The direction that shrinks slowest, in which the distance lies.
    slowest = np.linalg.svd(features, full_matrices=False)[2][-1]
    step = linear.step_size(features)
    after = []
    for x in features:  # every example that a step may draw
        after.append(np.sum((slowest - step * (x @ slowest) * x) ** 2))
    assert np.mean(after) <= linear.contraction(features) < 1
    smallest = np.linalg.svd(features, compute_uv=False)[-1] ** 2
    norm = np.square(features).sum(axis=1).max()
    assert linear.contraction(features) == pytest.approx(1 - smallest / (20 * norm), rel=1e-12)
    found = linear.sgd(features, targets, limit + slowest, 2000)
    assert np.linalg.norm(found - limit) <= linear.contraction(features) ** 1000


def test_fourier_features_have_norm_one_and_approximate_the_gaussian_kernel():
    points = np.random.default_rng(0).standard_normal((30, 5))
    x = linear.fourier_features(points, 20_000, 2.0, np.random.default_rng(1))
    assert x.shape == (30, 40_000)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
    np.testing.assert_allclose(x @ x.T, gram.Gaussian(2.0)(points, points), atol=0.03)


def mnist(tfds_dir, n):
    data = arrays.load("mnist", tfds_dir("mnist"), num_train=n, num_test=n)
    return [
        (split.images.reshape(n, -1) / 255, np.eye(10)[split.labels])
        for split in (data.train, data.test)
    ]


def test_sgd_agrees_with_the_closed_form_on_mnist_features(tfds_dir):
    (features, targets), _ = mnist(tfds_dir, 100)  # d = 784
    expected = np.linalg.lstsq(features, targets[:, 3])[0]
    assert relative(linear.minimum_norm(features, targets[:, 3]), expected) < 1e-9
    assert relative(linear.sgd(features, targets[:, 3], np.zeros(784), 500_000), expected) < 1e-6


def test_interpolants_that_do_not_generalize_have_larger_norms(tfds_dir):
    train, test = mnist(tfds_dir, 100)
    rng = np.random.default_rng(0)
    found = linear.interpolants(train, test, rng.standard_normal((784, 10)), rng)
    errors = {
        name: ((test[0] @ w).argmax(1) != test[1].argmax(1)).mean() for name, w in found.items()
    }
    norms = {name: np.linalg.norm(w) for name, w in found.items()}
    for name, w in found.items():
        np.testing.assert_allclose(train[0] @ w, train[1], atol=1e-8, err_msg=name)
    assert norms["minimum_norm"] < min(norms["random_start"], norms["random_test_labels"]) / 2
    assert errors["minimum_norm"] < 0.4
    assert min(errors["random_start"], errors["random_test_labels"]) > 0.6


def test_logistic_loss_is_the_cross_entropy():
    one, zero = jnp.ones(()), jnp.zeros(())
    for z in (-3.0, 0.5):
        probability = 1 / (1 + np.exp(-z))
        losses = [linear.logistic_loss(jnp.asarray(z), target) for target in (one, zero)]
        expected = -np.log([probability, 1 - probability])
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [linear.squared_loss, linear.logistic_loss])
def test_hessian_is_that_of_the_risk_the_same_at_every_interpolating_solution_and_degenerate(loss):
    features, targets = problem()
    one = linear.minimum_norm(features, targets)
    start = 10 * np.random.default_rng(1).standard_normal(50)
    other = one + start - linear.span_part(features, start)

    def hessian(w):
        beta = linear.second_derivatives(features, targets, w, loss)
        parts = [linear.hessian_rows(features, beta, rows) for rows in (slice(30), slice(30, 60))]
        return np.concatenate(parts)

    def risk(w):
        return jnp.mean(jax.vmap(loss)(features @ w, targets))

    with jax.enable_x64(True):
        np.testing.assert_allclose(hessian(one), jax.hessian(risk)(jnp.asarray(one)), atol=1e-12)
    np.testing.assert_allclose(hessian(one), hessian(other), atol=1e-12)
    assert np.linalg.norm(other - one) > 10
    beta = linear.second_derivatives(features, targets, one, loss)
    assert linear.null_dimension(features, beta) == scipy.linalg.null_space(hessian(one)).shape[1]
    assert linear.null_dimension(features, beta) == 30
    if loss is linear.logistic_loss:  # The Hessian differs where w is not a solution.
        assert np.abs(hessian(one) - hessian(0 * one)).max() > 1e-3


@pytest.mark.parametrize(
    "features, targets, reason",
    [
        (np.eye(3)[:2], np.zeros(3), "2 examples but 3 targets"),
        (np.eye(3)[[0, 0]], np.zeros(2), "not linearly independent"),
        (np.eye(3)[[0, 1, 2, 0]], np.zeros(4), "not linearly independent"),
        (np.zeros((0, 3)), np.zeros(0), "not linearly independent"),
        (np.full((1, 2), np.nan), np.zeros(1), "Features are not finite"),
        (np.ones((1, 2)), np.full(1, np.inf), "Targets are not finite"),
    ],
)
def test_problems_without_an_interpolant_are_refused(features, targets, reason):
    with pytest.raises(InputError, match=reason):
        linear.minimum_norm(features, targets)
