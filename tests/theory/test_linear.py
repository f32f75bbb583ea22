"""Section 5: closed forms beside literal SGD, NumPy and JAX's own differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rethinking.data import arrays
from rethinking.errors import InputError
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
    found = linear.interpolants(train, test)
    errors = {
        name: ((test[0] @ w).argmax(1) != test[1].argmax(1)).mean() for name, w in found.items()
    }
    norms = {name: np.linalg.norm(w) for name, w in found.items()}
    for name, w in found.items():
        np.testing.assert_allclose(train[0] @ w, train[1], atol=1e-8, err_msg=name)
    assert norms["minimum_norm"] < min(norms["random_start"], norms["random_test_labels"]) / 2
    assert (
        errors["minimum_norm"]
        < 0.4
        < 0.6
        < min(errors["random_start"], errors["random_test_labels"])
    )


def logistic(prediction, target):
    return jnp.logaddexp(0.0, -target * prediction)


@pytest.mark.parametrize("loss", [linear.squared_loss, logistic])
def test_hessian_is_that_of_the_risk_the_same_at_every_interpolating_solution_and_degenerate(loss):
    features, targets = problem()
    one = linear.minimum_norm(features, targets)
    start = 10 * np.random.default_rng(1).standard_normal(50)
    other = one + start - linear.span_part(features, start)
    hessian = linear.hessian(features, targets, one, loss)

    def risk(w):
        return jnp.mean(jax.vmap(loss)(features @ w, targets))

    with jax.enable_x64(True):
        np.testing.assert_allclose(hessian, jax.hessian(risk)(jnp.asarray(one)), atol=1e-12)
    np.testing.assert_allclose(hessian, linear.hessian(features, targets, other, loss), atol=1e-12)
    assert np.linalg.norm(other - one) > 10
    assert linear.null_dimension(hessian) == 30
    if loss is logistic:  # elsewhere it is another one
        assert np.abs(hessian - linear.hessian(features, targets, 0 * one, loss)).max() > 1e-3


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
