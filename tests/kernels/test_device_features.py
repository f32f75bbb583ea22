"""Features that stay on the devices, and products in float64 where the devices have none."""

import jax
import numpy as np
import pytest

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import cholesky, device_features, gram, interpolate, systems, threads
from rethinking.kernels.blas import BlasBackend
from rethinking.kernels.random_conv import RandomConv
from rethinking.kernels.sharded import ShardedBackend

NET = RandomConv(
    num_filters=16, patch_size=3, pool_size=5, pool_stride=2, threshold=0.5, num_patches=500
)
N, M = 50, 17
IMAGES = np.random.default_rng(0).integers(0, 256, (N + M, 12, 13, 3), dtype=np.uint8)
TARGETS = np.eye(3)[np.arange(N) % 3]
RIDGE = 0.1


def never(*arguments):
    raise AssertionError("the features left the devices")


def make_backend(dtype="float64", platform="cpu", num_devices=2):
    backend = cholesky.make_backend(N, dtype, sharding.device_mesh(num_devices, "rows"), 4)
    backend.platform = platform
    return backend


@pytest.fixture
def few_at_once(monkeypatch):
    """Several parts for each slot of rows, and several for each thread."""
    monkeypatch.setattr(device_features, "EXAMPLES", 3)
    monkeypatch.setattr(device_features, "ROWS", 7)


@pytest.mark.parametrize("dtype, platform", [("float64", "gpu"), ("float32", "tpu")])
def test_products_with_features_on_devices_have_the_digits_of_float64(
    dtype, platform, few_at_once, monkeypatch
):
    """`platform` stands for devices with and without float64."""
    monkeypatch.setattr(ShardedBackend, "like", _keeping_platform)
    features = NET.fit(IMAGES[:N], seed=0).on_devices(8)
    backend = make_backend(dtype, platform)
    v = np.random.default_rng(1).standard_normal((N, 2))
    with jax.enable_x64(True):
        train, test = (
            np.concatenate([block.on_host() for block in features.blocks(each, part)], 1)
            for each, part in ((backend, IMAGES[:N]), (backend.like(M), IMAGES[N:]))
        )
        assert train.dtype == np.float32
        train, test = train.astype(np.float64), test.astype(np.float64)
        system = systems.FeatureSystem(never, IMAGES[:N], backend, features)
        product = system.product(v, RIDGE)
        np.testing.assert_allclose(product, train @ (train.T @ v) + RIDGE * v, rtol=1e-12)
        np.testing.assert_allclose(system.predict(v, IMAGES[N:]), test @ (train.T @ v), rtol=1e-12)
        with pytest.raises(InputError, match="3 channels"):
            next(features.blocks(backend, IMAGES[:N, ..., :1]))


def test_features_and_gram_matrix_of_the_devices_are_those_of_the_host(few_at_once):
    net = NET.fit(IMAGES[:N], seed=0)
    few = net.transform(IMAGES[N:]).astype(np.float64)
    with jax.enable_x64(True):
        system = systems.FeatureSystem(never, IMAGES[:N], make_backend(), net.on_devices(8))
        # The features differ in the last bits of float32, which depend on the size of a batch.
        np.testing.assert_allclose(system.gram(IMAGES[N:]), few @ few.T, rtol=1e-5)
        diagonal = np.square(few).sum(1).mean()
        assert system.mean_diagonal(IMAGES[N:]) == pytest.approx(diagonal, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, platform", [("float64", "gpu"), ("float32", "gpu"), ("float32", "tpu")]
)
def test_interpolation_with_features_on_devices_is_the_dense_solution(dtype, platform, monkeypatch):
    monkeypatch.setattr(ShardedBackend, "like", _keeping_platform)
    net = NET.fit(IMAGES[:N], seed=0)
    train, test = (net.transform(part).astype(np.float64) for part in (IMAGES[:N], IMAGES[N:]))
    alpha = np.linalg.solve(train @ train.T + RIDGE * np.eye(N), TARGETS)
    with jax.enable_x64(True):
        backend = make_backend(dtype, platform)
        system = systems.FeatureSystem(never, IMAGES[:N], backend, net.on_devices(8))
        model = interpolate.solve(system, TARGETS, ridge=RIDGE)
    assert model.certificate.residual < 1e-10
    np.testing.assert_allclose(model.predict(IMAGES[N:]), test @ train.T @ alpha, rtol=1e-3)


def _keeping_platform(backend, n):
    other = ShardedBackend(
        cholesky.layouts.make(n, backend.mesh.size), str(backend.dtype), backend.mesh
    )
    other.platform = backend.platform
    return other


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_centers_stay_on_devices_that_have_float64(dtype):
    kernel, x = gram.Gaussian(1.5), np.random.default_rng(0).random((N, 20))
    centers = np.random.default_rng(1).random((120, 20))
    features = kernel(x, centers)
    v = np.random.default_rng(2).standard_normal((N, 2))
    with jax.enable_x64(True):
        system = systems.CentersSystem(kernel, centers, x, make_backend(dtype), block=50)
        system.blocks = never
        np.testing.assert_allclose(system.product(v, 0.0), features @ features.T @ v, rtol=1e-12)
        on_tpu = systems.CentersSystem(kernel, centers, x, make_backend("float32", "tpu"))
    assert on_tpu.on_devices is None


@pytest.mark.parametrize("cores", [1, 3])
def test_the_number_of_threads_changes_no_bit(cores, monkeypatch):
    """The parts of a product, computed on threads, are those that one thread adds in order."""
    monkeypatch.setattr("rethinking.kernels.blas.ROWS", 20)
    monkeypatch.setattr("rethinking.provenance.usable_cores", lambda: cores)
    kernel, x = gram.Gaussian(1.5), np.random.default_rng(0).random((N, 20))
    v = np.random.default_rng(2).standard_normal((N, 2))
    backend = BlasBackend(cholesky.wide_layout(N), "float64")
    product = 0.1 * v
    slices = [slice(0, 20), slice(20, 40), slice(40, 50)]
    for g, columns in enumerate(slices):
        for rows in slices[g:]:
            block = kernel(x[rows], x[columns])
            product[rows] += block @ v[columns]
            if rows != columns:
                product[columns] += block.T @ v[rows]
    np.testing.assert_array_equal(backend.gram_product(kernel, x, 0.1, v), product)
    np.testing.assert_allclose(product, kernel(x, x) @ v + 0.1 * v, rtol=1e-12)
    outputs = np.zeros((N, 2))
    for batch in slices:
        for rows in slices:
            outputs[batch] += kernel(x[batch], x[rows]) @ v[rows]
    np.testing.assert_array_equal(backend.predict(kernel, x, v, x), outputs)


def test_a_product_ends_when_its_time_is_up(monkeypatch):
    monkeypatch.setattr("rethinking.provenance.usable_cores", lambda: 2)
    started = []

    def before():
        if len(started) == 5:
            raise TimeoutError
        started.append(1)

    with pytest.raises(TimeoutError):
        list(threads.in_order(lambda item: item, range(100), before))
    assert list(threads.in_order(lambda item: item**2, range(100))) == [i**2 for i in range(100)]
