"""Systems that once had a wrong answer without a word: now it is right, or refused."""

from unittest import mock

import numpy as np
import pytest
import scipy.linalg

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import cholesky, gram, interpolate

ONE = sharding.device_mesh(1, "rows")
GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((60, 4))
Y = GENERATOR.integers(0, 3, 60)
KERNEL = gram.Gaussian(1.0)


@pytest.mark.parametrize("ridge", [1.0, 1e6, 1e20, 1e90])
def test_the_training_error_and_norm_with_a_large_ridge_are_scipys(ridge):
    model = interpolate.fit(X, Y, KERNEL, ridge=ridge, mesh=ONE)
    matrix = KERNEL(X, X)
    alpha = scipy.linalg.solve(matrix + ridge * np.eye(60), np.eye(3)[Y], assume_a="pos")
    expected = np.mean((matrix @ alpha).argmax(1) != Y)
    assert 0 < expected < 0.9
    assert model.certificate.train_error == model.error(X, Y) == expected
    norm = np.sqrt(np.einsum("nc,nm,mc", alpha, matrix, alpha))
    assert model.certificate.norm == pytest.approx(norm, rel=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_of_two_outputs_of_very_different_size_is_scipys(dtype):
    targets = GENERATOR.standard_normal((60, 2)) * [1e12, 1e-12]
    model = interpolate.fit(X, targets, KERNEL, dtype=dtype, mesh=ONE)
    alpha = scipy.linalg.solve(KERNEL(X, X), targets, assume_a="pos")
    error = np.linalg.norm(model.alpha - alpha, axis=0) / np.linalg.norm(alpha, axis=0)
    assert error.max() < 1e-7


def test_a_small_output_is_refined_too_and_refused_where_that_fails():
    def solve(accuracy):
        """A = I, and a factor that is inexact in the second of two directions."""
        factor = mock.Mock(spec=cholesky.Cholesky, backend=mock.Mock(dtype="float32"))
        factor.solve = lambda b: b * np.array([[1.0], [accuracy]])
        return cholesky.refine(factor, lambda v: v, np.diag([1e12, 1.0]))

    solution = solve(0.9)
    np.testing.assert_allclose(solution.alpha, np.diag([1e12, 1.0]), atol=1e-8)
    assert solution.refinements == 8
    with pytest.raises(InputError, match=r"residual of 2\.5e-01 .* not 1e-08"):
        solve(0.5 - 1e-12)


@pytest.mark.parametrize(
    "scale, dtype, said",
    [
        (1e300, "float64", r"output 1 is \S+e\+300\. .* 1e-100 to 1e\+100 in float64"),
        (1e-300, "float64", "Scale the targets"),
        (1e20, "float32", "in float32"),
        (1e-20, "float32", "in float32"),
    ],
)
def test_targets_that_leave_the_types_range_are_refused(scale, dtype, said):
    targets = np.stack([np.zeros(60), GENERATOR.standard_normal(60) * scale], 1)
    with pytest.raises(InputError, match=said):
        interpolate.fit(X, targets, KERNEL, dtype=dtype, mesh=ONE)


@pytest.mark.parametrize(
    "large, dtype, said",
    [
        (1e160, "float64", r"example 7 are as large as 1e\+160.*Scale"),
        (1e16, "float32", "overflow in float32"),
    ],
)
def test_features_whose_squares_overflow_are_refused(large, dtype, said):
    x = X.copy()
    x[7, 2] = -large
    with pytest.raises(InputError, match=said):
        interpolate.fit(x, Y, KERNEL, ridge=0.1, dtype=dtype, mesh=ONE)


def test_examples_to_predict_whose_squares_overflow_are_refused():
    # Their distances from all others became 0 instead of infinite.
    model = interpolate.fit(X, Y, KERNEL, mesh=ONE)
    assert model.predict(np.full((1, 4), 1e90)).max() == 0
    with pytest.raises(InputError, match=r"as large as 1e\+160"):
        model.predict(np.full((1, 4), 1e160))


def test_an_outlier_that_spoils_the_distances_of_the_others_is_refused():
    x = X.copy()
    x[40] = 1e8
    with pytest.raises(InputError, match="remove such outliers"):
        interpolate.fit(x, Y, KERNEL, ridge=0.1, mesh=ONE)


@pytest.mark.parametrize("ridge, dtype", [(1e101, "float64"), (1e16, "float32")])
def test_a_ridge_beyond_the_types_range_is_refused(ridge, dtype):
    with pytest.raises(InputError, match=f"overflows in {dtype}"):
        interpolate.fit(X, Y, KERNEL, ridge=ridge, dtype=dtype, mesh=ONE)


def test_repeated_examples_with_other_labels_and_a_tiny_ridge_are_refused():
    x, y = np.concatenate([X, X[:3]]), np.append(Y, (Y[:3] + 1) % 3)
    for ridge in (1e-300, 1e-18):
        with pytest.raises(cholesky.NotPositiveDefiniteError, match="remove examples that repeat"):
            interpolate.fit(x, y, KERNEL, ridge=ridge, mesh=ONE)
