"""Kernels against scikit-learn and SciPy, for NumPy and JAX arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise

from rethinking.errors import InputError
from rethinking.kernels import gram

X = np.random.default_rng(0).standard_normal((20, 7))
Z = np.random.default_rng(1).standard_normal((11, 7))


@pytest.mark.parametrize(
    "kernel, expected",
    [
        (gram.Gaussian(2.0), pairwise.rbf_kernel(X, Z, gamma=1 / 8)),
        (gram.Laplacian(3.0), np.exp(-cdist(X, Z) / 3)),
        (gram.Linear(), X @ Z.T),
        (
            gram.Polynomial(3, 0.5),
            pairwise.polynomial_kernel(X, Z, degree=3, gamma=1 / 7, coef0=0.5),
        ),
    ],
)
def test_values(kernel, expected):
    np.testing.assert_allclose(kernel(X, Z), expected, rtol=1e-12)
    with jax.default_matmul_precision("highest"):
        ours = kernel(jnp.asarray(X, jnp.float32), jnp.asarray(Z, jnp.float32))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6)


def test_distances_do_not_cancel_below_zero():
    x = 1e4 + np.random.default_rng(0).random((50, 300))
    squares = gram.squared_distances(x, x)
    assert (squares >= 0).all()
    assert (np.diag(squares) == 0).all()
    exact = cdist(x, x, "sqeuclidean")
    assert (
        np.abs(squares - exact).max()
        < 4 * np.sqrt(300) * np.finfo(float).eps * 2 * (x * x).sum(1).max()
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: gram.Gaussian(-1.0), r"bandwidth -1\.0: it must be a positive number"),
        (lambda: gram.Laplacian(0.0), r"bandwidth 0\.0: it must be a positive number"),
        (lambda: gram.Gaussian(float("nan")), "bandwidth nan: it must be a positive number"),
        (lambda: gram.Polynomial(0), r"degree 0 .*must be at least 1"),
        (lambda: gram.Polynomial(2, -1.0), r"offset -1\.0: .*at least 0"),
    ],
)
def test_kernels_that_are_not_positive_definite_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "kernel, features, expected",
    [
        (gram.Linear(), 7, 7),
        (gram.Polynomial(2), 3, 10),
        (gram.Polynomial(2, 0.0), 3, 6),
        (gram.Polynomial(5, 0.0), 1, 1),
        (gram.Polynomial(1, 0.5), 7, 8),
        (gram.Polynomial(3), 2, 10),
        (gram.Gaussian(1.0), 1, 1000),
        (gram.Polynomial(10**9), 10**6, 1000),
    ],
)
def test_dimensions_are_the_largest_rank(kernel, features, expected):
    assert gram.dimensions(kernel, features, 1000) == expected
    if features < 10 and expected < 1000:
        x = np.random.default_rng(0).standard_normal((40, features))
        assert np.linalg.matrix_rank(kernel(x, x)) == expected
