"""Exact interpolation and its certificate, against dense NumPy."""

import dataclasses
import functools
from collections import namedtuple

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import checks, cholesky, gram, interpolate, memory, sharded, systems

KERNEL = gram.Gaussian(1.5)
MESH = sharding.device_mesh(3, "rows")
ONE = sharding.device_mesh(1, "rows")


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images[:300] / 16, labels[:300], images[300:700] / 16, labels[300:700]


@pytest.fixture(scope="module")
def fitted(digits):
    """A function from the devices to the model of the digits. Tests do not change it."""
    x, labels, *_ = digits
    return functools.cache(lambda mesh: interpolate.fit(x, labels, KERNEL, mesh=mesh))


def test_interpolant_is_the_dense_solution(digits, fitted):
    x, labels, z, test_labels = digits
    matrix = KERNEL(x, x)
    alpha = np.linalg.solve(matrix, np.eye(10)[labels])
    outputs = KERNEL(z, x) @ alpha
    model = fitted(MESH)
    np.testing.assert_allclose(model.alpha, alpha, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.predict(z), outputs, atol=1e-9)
    assert model.error(z, test_labels) == np.mean(outputs.argmax(1) != test_labels)
    certificate = model.certificate
    assert certificate.residual < 1e-12
    assert certificate.train_error == 0
    assert certificate.norms == pytest.approx(
        np.sqrt(np.diag(np.eye(10)[labels].T @ alpha)), rel=1e-8
    )
    assert certificate.norm == pytest.approx(np.linalg.norm(certificate.norms))
    assert certificate.condition == pytest.approx(np.linalg.cond(matrix, 1), rel=0.7)
    assert np.linalg.norm(model.alpha - alpha) / np.linalg.norm(alpha) < 1e-8


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Not defined at zero."""

    def __call__(self, x, z):
        xp = x.__array_namespace__()
        lengths = xp.sqrt((x * x).sum(1))[:, None] * xp.sqrt((z * z).sum(1))[None, :]
        return (1 + x @ z.T / lengths) ** 2


def test_padding_does_not_ask_for_a_kernel_at_zero(digits):
    x, labels, z, _ = digits
    one, many = (
        interpolate.fit(x, labels, Cosine(), ridge=1e-3, mesh=mesh) for mesh in (ONE, MESH)
    )
    assert many.certificate.residual < 1e-12
    np.testing.assert_allclose(many.predict(z), one.predict(z), atol=1e-8)


def test_predictions_in_batches_of_one_size_are_those_of_one_batch(digits, monkeypatch):
    traced = []

    def kernel(x, z):
        traced.append(len(x))
        return KERNEL(x, z)

    x, labels, z, _ = digits
    model = interpolate.fit(x, labels, kernel, mesh=MESH)
    monkeypatch.setattr(sharded, "BATCH", 150)
    # One program serves all batches, so that the kernel is traced for a single size, once.
    for num, sizes in ((1, {1}), (301, {101}), (300, {150}), (150, set())):
        traced.clear()
        found = model.predict(z[:num])
        np.testing.assert_allclose(found, KERNEL(z[:num], x) @ model.alpha, atol=1e-9)
        assert set(traced) == sizes


def test_ridge_norm_is_that_of_the_function(digits):
    x, labels, *_ = digits
    matrix = KERNEL(x, x)
    alpha = np.linalg.solve(matrix + 0.5 * np.eye(300), np.eye(10)[labels])
    model = interpolate.fit(x, labels, KERNEL, ridge=0.5, mesh=MESH)
    assert model.certificate.norm == pytest.approx(
        np.sqrt(np.einsum("nc,nm,mc", alpha, matrix, alpha))
    )
    assert model.certificate.train_error == np.mean((matrix @ alpha).argmax(1) != labels)


def test_float32_is_refined_to_float64s_solution(digits, fitted):
    x, labels, z, _ = digits
    exact = fitted(MESH)
    model = interpolate.fit(x, labels, KERNEL, dtype="float32", mesh=MESH)
    assert model.certificate.refinements > 0
    assert model.certificate.residual < 1e-8
    np.testing.assert_allclose(model.predict(z), exact.predict(z), atol=1e-5)


@pytest.mark.parametrize("mesh", [ONE, MESH])
def test_a_matrix_that_is_singular_in_float32_is_refused_there_and_solved_in_float64(mesh):
    # k(x_0, x_1) = 1 - 5e-9 is 1 in float32, so that row 1 repeats row 0.
    x = np.array([[0.0], [1e-4], [3.0]])
    kernel, targets = gram.Gaussian(1.0), np.array([[1.0], [1.0], [-1.0]])
    message = "not positive definite in float32: pivot 1 .*compute in float64"
    with pytest.raises(cholesky.NotPositiveDefiniteError, match=message) as error:
        interpolate.fit(x, targets, kernel, dtype="float32", mesh=mesh)
    assert error.value.pivot == 1
    found = interpolate.fit(x, targets, kernel, mesh=mesh).predict(x)
    np.testing.assert_allclose(found, targets, atol=1e-7)


@dataclasses.dataclass(frozen=True)
class WrongInFloat32:
    """In float32 a quarter of the kernel."""

    def __call__(self, x, z):
        return KERNEL(x, z) * (0.25 if x.dtype == np.float32 else 1.0)


@pytest.mark.parametrize("mesh", [ONE, MESH])
def test_refinement_that_does_not_converge_is_refused_with_its_residual(mesh, digits):
    # The first solution is 4 times the exact one, so that its residual is 1 - 4 = -3 times the
    # targets. A step of refinement would make that 9 times.
    x, labels, *_ = digits
    message = r"float32 factor reaches a residual of 3\.0e\+00 after 0 refinements.*: float64"
    with pytest.raises(InputError, match=message) as error:
        interpolate.fit(x, labels, WrongInFloat32(), ridge=1e-9, dtype="float32", mesh=mesh)
    assert type(error.value) is InputError


def test_own_kernel_is_a_frozen_dataclass(digits):
    @dataclasses.dataclass(frozen=True)
    class Cauchy:
        scale: float

        def __call__(self, x, z):
            return 1 / (1 + gram.squared_distances(x, z) * (1 / self.scale**2))

    x, labels, *_ = digits
    assert interpolate.fit(x[:50], labels[:50], Cauchy(2.0), mesh=MESH).certificate.residual < 1e-12


def test_functions_that_are_not_kernels_are_refused(digits):
    @dataclasses.dataclass
    class Unhashable:
        def __call__(self, x, z):
            return x @ z.T

    x, labels, *_ = digits
    for mesh in (ONE, MESH):
        for kernel, said in (
            (Unhashable(), "not hashable"),
            (lambda x, z: (x * z[:1]).sum(1), r"shape \(2,\)"),
        ):
            with pytest.raises(InputError, match=said):
                interpolate.fit(x, labels, kernel, mesh=mesh)
    with pytest.raises(InputError, match="__array_namespace__"):
        interpolate.fit(x, labels, lambda x, z: np.exp(x @ z.T), mesh=MESH)


def test_compilation_does_not_count_for_the_steps(digits):
    def kernel(x, z):
        """Tells JAX's listeners of a compilation that took a minute."""
        jax.monitoring.record_event_duration_secs(
            "/jax/core/compile/backend_compile_duration", 60.0
        )
        return KERNEL(x, z)

    x, labels, *_ = digits
    seconds = interpolate.fit(x, labels, kernel, mesh=ONE).seconds
    assert seconds.compile >= 60 and seconds.compile % 60 == pytest.approx(0, abs=10)
    assert seconds.gram + seconds.factor + seconds.solve < -50


def test_features_in_blocks_are_their_linear_kernel(digits):
    x, labels, z, _ = digits
    weights = np.random.default_rng(0).standard_normal((64, 500)).astype(np.float32)

    seen = []

    def blocks(images):
        seen.append(len(images))
        return (
            np.maximum(images.astype(np.float32) @ weights[:, i : i + 200], 0)
            for i in range(0, 500, 200)
        )

    features, theirs = (np.concatenate(list(blocks(part)), 1).astype(np.float64) for part in (x, z))
    seen.clear()
    alpha = np.linalg.solve(features @ features.T + 0.1 * np.eye(300), np.eye(10)[labels])
    with jax.enable_x64(True):
        for mesh in (ONE, MESH):
            backend = cholesky.make_backend(300, "float64", mesh, num_panels=4)
            system = systems.FeatureSystem(blocks, x, backend)
            model = interpolate.solve(system, np.eye(10)[labels], labels, ridge=0.1)
            np.testing.assert_allclose(model.predict(z), theirs @ features.T @ alpha, atol=1e-5)
    # The training set's features are computed twice: for the matrix and for its product.
    assert seen == 2 * [len(x), len(x), len(z)]


@pytest.mark.parametrize("mesh", [ONE, MESH])
def test_random_centers_interpolate_with_a_larger_norm(digits, fitted, mesh):
    x, labels, *_ = digits
    centers = np.random.default_rng(0).random((600, 64))
    with jax.enable_x64(True):
        backend = cholesky.make_backend(300, "float64", mesh)
        system = systems.CentersSystem(KERNEL, centers, x, backend)
        model = interpolate.solve(system, np.eye(10)[labels], labels)
    assert model.certificate.train_error == 0
    features = KERNEL(x, centers)
    weights = np.linalg.lstsq(features, np.eye(10)[labels])[0]
    norm = np.sqrt(np.einsum("nc,nm,mc", weights, KERNEL(centers, centers), weights))
    assert model.certificate.norm == pytest.approx(norm, rel=1e-3)
    assert norm > 3 * fitted(mesh).certificate.norm


def test_gram_matrices_and_their_diagonals_for_some_examples(digits):
    x, *_ = digits
    weights = np.random.default_rng(0).standard_normal((64, 50))
    few, kernel = x[:30], gram.Polynomial(2, 0.5)
    with jax.enable_x64(True):
        backend = cholesky.make_backend(300, "float64", ONE)

        def blocks(images):
            yield images @ weights[:, :20]
            yield images @ weights[:, 20:]

        for system, expected in (
            (systems.KernelSystem(kernel, x, backend), (few @ few.T / 64 + 0.5) ** 2),
            (systems.FeatureSystem(blocks, x, backend), few @ weights @ weights.T @ few.T),
        ):
            np.testing.assert_allclose(system.gram(few), expected, rtol=1e-12)
            assert system.mean_diagonal(few) == pytest.approx(np.trace(expected) / 30, rel=1e-12)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda x, y: (x[:0], y[:0]), "n = 0"),
        (lambda x, y: (x[:10], y), "10 examples but 300 labels"),
        (
            lambda x, y: (np.where(np.arange(300)[:, None] == 7, np.nan, x), y),
            "features of example 7 are not finite",
        ),
        (lambda x, y: (x, np.full((300, 2), np.inf)), "targets of example 0 are not finite"),
        (lambda x, y: (x, y - 5), "label -5"),
        (
            lambda x, y: (np.concatenate([x, x[3:4]]), np.append(y, 9)),
            r"different label \(3 and 300\)",
        ),
        (
            lambda x, y: (np.concatenate([x, x[3:4]]), np.append(y, y[3])),
            r"repeat another \(3 and 300\)",
        ),
    ],
)
def test_bad_data_are_refused(digits, change, reason):
    with pytest.raises(InputError, match=reason):
        interpolate.fit(*change(*digits[:2]), KERNEL, mesh=MESH)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(InputError, match=r"label 3 of example 1: with 3 classes .* 0 to 2"):
        checks.one_hot(np.array([0, 3]), 3)


@pytest.mark.parametrize("ridge", [-1e-3, np.inf, np.nan])
def test_a_ridge_that_is_not_a_number_from_zero_is_refused(digits, ridge):
    with pytest.raises(InputError, match=r"ridge=.*positive number"):
        interpolate.fit(*digits[:2], KERNEL, ridge=ridge, mesh=ONE)


def test_repeated_examples_are_allowed_with_a_ridge(digits):
    x, labels, *_ = digits
    twice = np.concatenate([x, x[:5]]), np.append(labels, labels[:5])
    assert interpolate.fit(*twice, KERNEL, ridge=0.1, mesh=MESH).certificate.residual < 1e-12


def test_too_little_memory_is_refused_before_anything_is_computed(digits, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("Memory", "available")(10**5))
    with pytest.raises(
        InputError,
        match=r"n = 300 examples in float64 takes .* serves 3 of them and has 0\.0 GB free\. "
        r'Remedies: fewer examples, more devices, dtype="float32"\.',
    ):
        interpolate.fit(*digits[:2], KERNEL, mesh=MESH)


def test_sixty_thousand_points_take_sixteen_gigabytes():
    backend = cholesky.make_backend(60_000, "float64", ONE)
    assert 15e9 < memory.needed(backend, 10, 784) < 16.5e9


def test_ambiguous_labels_and_targets_are_refused(digits):
    x, labels, *_ = digits
    one_hot = np.eye(10, dtype=int)[labels]
    for y, cause in ((labels.astype(float), "labels, or a target"), (one_hot, "integers of shape")):
        with pytest.raises(InputError, match=cause):
            interpolate.fit(x, y, KERNEL)
    model = interpolate.fit(x, labels, KERNEL, mesh=ONE)
    for same in (labels[:, None], one_hot.astype(float)):
        np.testing.assert_array_equal(interpolate.fit(x, same, KERNEL, mesh=ONE).alpha, model.alpha)
    assert interpolate.fit(x, labels > 4, KERNEL, mesh=ONE).alpha.shape == (len(x), 2)
    assert interpolate.fit(x, labels[:, None].astype(float), KERNEL, mesh=ONE).alpha.shape == (
        len(x),
        1,
    )
    with pytest.raises(InputError, match="one integer for each"):
        model.error(x, labels[:5])


@pytest.mark.parametrize("mesh", [ONE, MESH])
def test_a_kernel_that_is_not_defined_for_an_example_is_refused(digits, mesh):
    x, labels, *_ = digits
    x = x.copy()
    x[150] = 0
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match="must give finite values"):
        interpolate.fit(x, labels, Cosine(), ridge=1.0, mesh=mesh)


def test_test_examples_must_be_like_the_training_examples(digits):
    x, labels, z, _ = digits
    model = interpolate.fit(x, labels, KERNEL, mesh=ONE)
    not_finite = np.where(np.arange(len(z))[:, None] == 3, np.nan, z)
    for given, reason in (
        (z[:, 1:], "63 features"),
        (z[0], "64 examples of 1 features"),
        (not_finite, "example 3 are not finite"),
        (z[:0], "0 examples to predict"),
    ):
        with pytest.raises(InputError, match=reason):
            model.predict(given)


@pytest.mark.parametrize("mesh", [ONE, MESH])
def test_where_the_data_lie_does_not_matter(digits, fitted, mesh):
    x, labels, z, _ = digits  # multiples of 1/16, so that their sums with the offset are exact
    expected = fitted(mesh).predict(z)
    moved = interpolate.fit(x + 2.0**22, labels, KERNEL, mesh=mesh).predict(z + 2.0**22)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_the_condition_is_the_same_each_time_and_the_global_generator_is_left_alone(digits):
    x, labels, *_ = digits
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    found = {interpolate.fit(x, labels, KERNEL, mesh=ONE).certificate.condition for _ in range(4)}
    assert len(found) == 1 and np.random.rand() == expected
