"""Arguments that nobody can compute with are refused at the call, with cause and remedy."""

import dataclasses

import jax
import jaxtyping
import numpy as np
import pytest
import scipy.sparse
from jax.sharding import Mesh

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import checks, cholesky, gram, interpolate, probe, systems
from rethinking.kernels.gabor import Gabor, gabor
from rethinking.kernels.random_conv import RandomConv

ONE = sharding.device_mesh(1, "rows")
TWO = sharding.device_mesh(2, "rows")
GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((12, 3))
Y = np.arange(12) % 3
KERNEL = gram.Gaussian(2.0)


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
    """Without the check of annotations that tests have, which would refuse wrong types first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    "y, said",
    [
        (np.where(Y == 2, 2_000_000, Y), r"2,000,001 classes, too many for 12 .*numpy\.unique"),
        (np.where(Y == 2, 2**63, Y.astype(np.uint64)), r"label 9223372036854775808.*numpy\.unique"),
        (Y - 1, r"label -1 of example 0.*numpy\.unique"),
        (np.array(["cat", "dog", "cow"])[Y], r"type <U3.*numpy\.unique"),
        (np.array(["cat", "dog", "cow"], object)[Y], r"type object.*numpy\.unique"),
        (Y.astype(object), "type object"),
        (Y * 1j, "type complex128"),
        (np.eye(3)[Y][:, :0], "at least one number"),
        (np.array(3), "row for each example"),
        (None, "row for each example"),
        (np.ma.masked_equal(Y, 2), "masked"),
        (scipy.sparse.csr_matrix(np.eye(3)[Y]), r"y\.toarray"),
        (np.where(np.arange(12) == 5, np.nan, Y), "targets of example 5 are not finite"),
    ],
)
def test_wrong_labels_are_refused_before_a_matrix_has_a_place(y, said, monkeypatch):
    if "finite" not in said:
        monkeypatch.setattr(cholesky, "make_backend", None)
    with pytest.raises(InputError, match=said):
        interpolate.fit(X, y, KERNEL, mesh=ONE)


@pytest.mark.parametrize(
    "x, said",
    [
        (scipy.sparse.csr_matrix(X), r"sparse.*x\.toarray"),
        (scipy.sparse.coo_array(X), r"sparse.*x\.toarray"),
        (X * 1j, "type complex128"),
        (X.astype(str), "type <U"),
        (X.astype(object), "type object"),
        ([[1.0, 2.0], [3.0]] * 6, "one length"),
        (np.ma.masked_greater(X, 1), "masked"),
        (X[:, :0], "at least one number"),
        (np.float64(3), "row for each example"),
        (None, "row for each example"),
        (X.astype("datetime64[s]"), "type datetime64"),
    ],
)
def test_wrong_examples_are_refused_by_fit_and_by_predict(x, said, monkeypatch):
    model = interpolate.fit(X, Y, KERNEL, mesh=ONE)
    monkeypatch.setattr(cholesky, "make_backend", None)
    with pytest.raises(InputError, match=said):
        interpolate.fit(x, Y, KERNEL, mesh=ONE)
    with pytest.raises(InputError, match="features" if "at least" in said else said):
        model.predict(x)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"kernel": "rbf"}, r"kernel is 'rbf'.*gram\.Gaussian\(bandwidth"),
        ({"kernel": gram.Gaussian}, r"kernel is <class .*gram\.Gaussian\(bandwidth"),
        ({"kernel": None}, "kernel is None"),
        ({"ridge": None}, "ridge=None: it must be 0.*or a positive number"),
        ({"ridge": "0.1"}, "ridge='0.1'"),
        ({"ridge": True}, "ridge=True"),
        ({"ridge": 1j}, "ridge=1j"),
        ({"ridge": np.ones(3)}, "ridge=array"),
        ({"dtype": np.float64}, "float32.* or .*float64"),
        ({"dtype": None}, "dtype=None"),
        ({"dtype": ["float64"]}, "dtype="),
        ({"mesh": 2}, "single axis"),
        ({"mesh": Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))}, "single axis"),
    ],
)
def test_other_wrong_arguments_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        interpolate.fit(X, Y, **{"kernel": KERNEL, "mesh": ONE} | changes)


def test_the_error_of_labels_that_are_none_is_refused_and_of_others_right():
    model = interpolate.fit(X, Y, KERNEL, mesh=ONE)
    assert model.error(X, Y) == 0
    assert model.error(X, Y.astype(np.uint8)[:, None]) == 0
    assert model.error(X, np.where(Y == 0, 7, Y)) == pytest.approx(1 / 3)  # 7 was never seen
    names = np.array(["cat", "cow", "dog"])[Y]
    for labels in (names, names.astype(object), Y.astype(float), Y - 1, np.eye(3)[Y], None, Y[0]):
        with pytest.raises(InputError, match="labels"):
            model.error(X, labels)
    # The remedy of the messages.
    classes, numbers = np.unique(names, return_inverse=True)
    named = interpolate.fit(X, numbers, KERNEL, mesh=ONE)
    assert (classes[named.predict(X).argmax(1)] == names).all()
    with pytest.raises(InputError, match="one output, fitted to numbers"):
        interpolate.fit(X, X[:, :1], KERNEL, mesh=ONE).error(X, Y)


def test_a_ridge_may_be_any_real_number():
    expected = interpolate.fit(X, Y, KERNEL, ridge=2.0, mesh=ONE).predict(X)
    for ridge in (2, np.float32(2), np.int8(2), np.array(2.0), jax.numpy.float32(2)):
        found = interpolate.fit(X, Y, KERNEL, ridge=ridge, mesh=ONE).predict(X)
        np.testing.assert_array_equal(found, expected)


def test_few_examples_of_many_classes_are_allowed():
    model = interpolate.fit(X, Y * 400, KERNEL, mesh=ONE)
    assert model.alpha.shape == (12, 801) and model.error(X, Y * 400) == 0


def test_a_model_keeps_its_own_copy_of_the_examples():
    for mesh in (ONE, TWO):
        x = X.copy()
        model = interpolate.fit(x, Y, KERNEL, mesh=mesh)
        expected = model.predict(X)
        x[:] = 0
        np.testing.assert_array_equal(model.predict(X), expected)


@dataclasses.dataclass(frozen=True)
class Standardized:
    """Depends on the other examples of the same call."""

    def __call__(self, x, z):
        return KERNEL(x / x.std(), z / z.std())


@pytest.mark.parametrize("mesh", [ONE, TWO])
@pytest.mark.parametrize(
    "kernel, said",
    [
        (Standardized(), "must be a function of the pair"),
        (lambda x, z: KERNEL(x, z + 1), "not symmetric"),
        (lambda x, z: None, "shape (None|\\(\\)) for 2 and 3 examples"),
        (lambda x, z: (x @ z.T) ** 2000, "not finite"),
        (lambda x, z: (x @ z.T).astype("float32"), "type float32 for examples of type float64"),
        (gram.Gaussian(1e9), r"bandwidth=1000000000\.0\) is 1 for each .*smaller bandwidth"),
        (gram.Polynomial(2, 1e30), "is 1e.60 for each .*smaller offset"),
        (gram.Laplacian(1e-9), r"bandwidth=1e-09\) is 0 .*larger bandwidth"),
    ],
)
def test_a_kernel_that_says_nothing_is_refused_before_the_solve(kernel, said, mesh, monkeypatch):
    monkeypatch.setattr(interpolate, "solve", None)
    with pytest.raises(InputError, match=said):
        interpolate.fit(X, Y, kernel, ridge=0.1, mesh=mesh)


def test_ordinary_kernels_pass():
    with jax.enable_x64(True):
        for n in (1, 2, 12):
            for kernel in (KERNEL, gram.Laplacian(0.2), gram.Polynomial(3), gram.Linear()):
                for dtype in ("float64", "float32"):
                    probe.check_kernel(kernel, X[:n], cholesky.make_backend(n, dtype, ONE))
        # Orthogonal examples, and examples that are all the same, with a ridge.
        for x in (np.eye(12), np.ones((12, 3))):
            probe.check_kernel(gram.Linear(), x, cholesky.make_backend(12, "float64", ONE))


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: gram.Gaussian(1e300), "bandwidth 1e.300: its square"),
        (lambda: gram.Gaussian(1e-300), "bandwidth 1e-300: its square"),
        (lambda: gram.Laplacian(10**400), "bandwidth 1000.*positive number"),
        (lambda: gram.Gaussian("5"), "positive number"),
        (lambda: gram.Gaussian(None), "positive number"),
        (lambda: gram.Gaussian(True), "positive number"),
        (lambda: gram.Polynomial(2, float("nan")), "offset nan"),
        (lambda: gram.Polynomial(2, float("inf")), "offset inf"),
        (lambda: gram.Polynomial(2.5), r"degree 2\.5.*whole number"),
        (lambda: gram.Polynomial("2"), "degree 2 "),
        (lambda: Gabor(wavelengths=()), "wavelengths"),
        (lambda: Gabor(wavelengths=(4.0, -1.0)), "wavelengths"),
        (lambda: Gabor(orientations=0), "orientations=0"),
        (lambda: Gabor(envelope=0.0), r"envelope=0\.0"),
        (lambda: Gabor(grid=2.5), r"grid=2\.5"),
        (lambda: Gabor(pooling=float("nan")), "pooling=nan"),
        (lambda: Gabor(wavelengths=(1e9,)), "smaller wavelengths"),
        (lambda: Gabor(orientations=10**9), "fewer orientations"),
        (lambda: Gabor(grid=10**6), "smaller grid"),
        (lambda: Gabor(pooling=1e-3).cells(8), r"pooling=0\.001.*half a pixel"),
        (lambda: Gabor(pooling=1e-300).cells(8), "half a pixel"),
        (lambda: Gabor(wavelengths=(1e-3,)).filters(), "single pixel"),
        (lambda: Gabor(wavelengths=(1e-300,)).filters(), "single pixel"),
        (lambda: RandomConv(num_filters=0), "num_filters=0"),
        (lambda: RandomConv(threshold="1"), "threshold='1'"),
        (lambda: RandomConv(patch_size=True), "patch_size=True"),
        (lambda: RandomConv(contrast=-1.0), r"contrast=-1\.0"),
        (lambda: RandomConv(whitening=0.0), r"whitening=0\.0"),
        (lambda: RandomConv(threshold=float("inf")), "threshold=inf"),
        (lambda: RandomConv(pool_stride=0), "pool_stride=0"),
        (lambda: RandomConv(num_filters=200_000), "num_patches=100000"),
    ],
)
def test_settings_are_checked_when_they_are_made(make, said):
    with pytest.raises(InputError, match=said):
        make()


def grey(n=2, side=12):
    return GENERATOR.integers(0, 256, (n, side, side, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    "images, said",
    [
        (grey()[0], r"shape \(12, 12, 1\): .*\[n, height, width, channels\]"),
        (grey().astype(str), "type <U"),
        (scipy.sparse.eye(3), "sparse"),
        (grey() / -255, "below 0"),
        (grey().astype(np.uint16) * 257, "above 255"),
        (grey() / 255, "0 to 1.*255"),
    ],
)
def test_wrong_images_are_refused(images, said):
    net = RandomConv(num_filters=2, patch_size=3, pool_size=2, pool_stride=2, num_patches=20)
    for compute in (gabor, lambda images: net.fit(images, 0)):
        with pytest.raises(InputError, match=said):
            compute(images)


def test_wrong_batches_and_seeds_are_refused():
    net = RandomConv(num_filters=2, patch_size=3, pool_size=2, pool_stride=2, num_patches=20)
    for compute, said in (
        (lambda: gabor(grey(), batch_size=0), "batch_size=0"),
        (lambda: gabor(grey(), settings=3), "settings=3"),
        (lambda: net.fit(grey(), -1), "seed=-1"),
        (lambda: net.fit(grey(), 0).transform(grey(), batch_size=-5), "batch_size=-5"),
        (lambda: list(net.fit(grey(), 0).blocks(grey(), 0)), "filters_per_block=0"),
        (lambda: net.fit(grey(), 0).transform(grey(), -1), "start=-1"),
        (lambda: net.fit(grey(), 0).transform(grey(), 0, 1.5), r"stop=1\.5"),
    ):
        with pytest.raises(InputError, match=said):
            compute()


def test_systems_are_checked_when_they_are_made_or_solved():
    with jax.enable_x64(True):
        backend = cholesky.make_backend(12, "float64", ONE)
    with pytest.raises(InputError, match=r"11 examples, but .* 12 rows"):
        systems.KernelSystem(KERNEL, X[:11], backend)
    system = systems.KernelSystem(KERNEL, X, backend)
    targets = np.eye(3)[Y]
    for arguments, said in (
        ((targets[:11],), "targets of shape"),
        ((Y,), "targets of shape"),
        ((np.where(targets == 0, np.nan, 1),), "targets of example 0"),
        ((targets, Y[:5]), "5 labels for 12"),
        ((targets, Y, -1.0), r"ridge=-1\.0"),
    ):
        with pytest.raises(InputError, match=said):
            interpolate.solve(system, *arguments)
    for block, said in (
        (lambda x: iter(()), "no block"),
        (lambda x: iter([x[:3]]), r"shape \(3, 3\) for 12 examples"),
        (lambda x: iter([x / 0]), "NaN or infinite"),
    ):
        with np.errstate(all="ignore"), pytest.raises(InputError, match=said):
            interpolate.solve(systems.FeatureSystem(block, X, backend), targets)
    solved = interpolate.solve(
        systems.FeatureSystem(lambda x: iter([x]), X, backend), targets, Y, 1
    )
    with pytest.raises(InputError, match="example 2 are not finite"):
        solved.predict(np.where(np.arange(12)[:, None] == 2, np.inf, X))
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        solved.predict(X[:, :2])


def test_one_hot_is_checked():
    for labels in ([], [0.5], ["a"], [[0, 1]]):
        with pytest.raises(InputError, match="labels"):
            checks.one_hot(np.array(labels))
