"""Section 2.2: closed forms against all signs by brute force."""

import itertools
import math

import numpy as np
import pytest
import scipy.special

from rethinking.kernels import gram
from rethinking.theory import complexity

RNG = np.random.default_rng(0)


def all_signs(n):
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


def test_kernel_ball_is_the_sup_over_the_ball_and_below_its_bound():
    x = RNG.standard_normal((9, 4))
    signs = all_signs(9)
    k = gram.Gaussian(1.5)(x, x)
    # The sup of <f, sum sigma_i phi_i> / n over the ball is at the f in that direction.
    best = [2.0 * s @ (k @ s) / math.sqrt(s @ k @ s) / 9 for s in signs]
    assert complexity.kernel_ball(k, 2.0, signs) == pytest.approx(np.mean(best))
    bound = complexity.kernel_ball_bound(np.diag(k), 2.0)
    assert complexity.kernel_ball(k, 2.0, signs) <= bound == pytest.approx(2 / 3)
    assert complexity.linear_ball(x, 2.0, signs) == pytest.approx(
        complexity.kernel_ball(x @ x.T, 2.0, signs)
    )


@pytest.mark.parametrize("n, d, rank", [(10, 3, 3), (10, 3, 2), (6, 6, 6), (5, 12, 5)])
def test_linear_span_is_the_sup_over_functions_of_mean_square_one(n, d, rank):
    x = RNG.standard_normal((n, rank)) @ RNG.standard_normal((rank, d))
    signs = all_signs(n)
    basis = np.linalg.svd(x, full_matrices=False)[0][:, :rank]
    outputs = (signs @ basis) @ basis.T
    outputs *= math.sqrt(n) / np.linalg.norm(outputs, axis=1, keepdims=True)
    value = complexity.linear_span(x, signs)
    assert value == pytest.approx((signs * outputs).mean())
    assert value <= math.sqrt(rank / n) + 1e-12
    assert value == pytest.approx(complexity.linear_span(x.astype(np.float32), signs), rel=1e-4)


def test_linear_span_keeps_small_but_meaningful_directions_in_float32():
    """Natural images have singular values over four orders of magnitude.

    The features have full rank, so linear functions fit all signs.
    """
    basis = np.linalg.qr(RNG.standard_normal((200, 40)))[0]
    x = (basis * np.logspace(0, -4, 40)).T.astype(np.float32)
    assert complexity.linear_span(x, np.sign(RNG.standard_normal((3, 40)))) == pytest.approx(1.0)


def test_interval_covers_a_class_known_exactly():
    """For two constant functions the sup is |mean sigma|; its expectation is a sum of binomials."""
    n, draws = 20, 5
    expected = sum(math.comb(n, k) * abs(2 * k - n) for k in range(n + 1)) / (n * 2**n)
    suprema = np.abs(RNG.choice([-1.0, 1.0], (400, draws, n)).mean(axis=2))
    intervals = [complexity.interval(each, n) for each in suprema]
    assert np.mean([low <= expected <= high for low, high in intervals]) >= 0.95
    low, high = complexity.interval(np.ones(5), 1000)
    assert (round(1 - low, 4), high) == (0.0384, 1.0)


@pytest.mark.parametrize("n", [4, 10])
def test_vc_bound_follows_from_sauers_lemma(n):
    """The bound is at most n, however many draws are fitted.

    A class of VC dimension d that fits as many signs as Sauer's lemma allows has a bound of at most
    d.
    """
    assert complexity.vc_at_least(n, 100_000, 100_000) == n
    assert complexity.vc_at_least(n, 5, 0) == 0
    for d in range(n):
        fraction = sum(scipy.special.comb(n, i) for i in range(d + 1)) / 2**n
        assert complexity.vc_at_least(n, 100_000, int(fraction * 100_000)) <= d
    assert complexity.vc_at_least(1000, 5, 5) == 502


def test_losses_are_cross_entropies():
    logits, labels = RNG.standard_normal((30, 4)), RNG.integers(0, 4, 30)
    expected = scipy.special.logsumexp(logits, axis=1) - logits[np.arange(30), labels]
    np.testing.assert_allclose(complexity.losses(logits + 1e4, labels), expected, atol=1e-8)


def test_changes_are_zero_for_equal_losses_and_know_whose_example_changed():
    before = RNG.random(6)
    replaced = np.arange(6) == 2
    assert set(complexity.changes(before, before, replaced).values()) == {0.0}
    after = before + np.array([0, 0, 3.0, 0, -6.0, 0])
    assert complexity.changes(before, after, replaced) == pytest.approx(
        {"max_change": 6.0, "mean_change": 1.5, "own_change": 3.0}
    )
