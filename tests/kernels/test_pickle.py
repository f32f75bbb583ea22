"""A pickled model predicts the same, bit for bit, in this program and in one with fewer devices."""

import copy
import functools
import pickle

import jax
import numpy as np
import pytest

from rethinking import sharding
from rethinking.kernels import cholesky, gram, interpolate, systems

GENERATOR = np.random.default_rng(0)
X, Z = GENERATOR.standard_normal((40, 3)), GENERATOR.standard_normal((7, 3))
Y = np.arange(40) % 3
KERNEL = gram.Laplacian(2.0)


def features(x):
    yield x
    yield np.maximum(x - 0.5, 0)


@functools.cache
def fitted(num_devices, dtype):
    mesh = sharding.device_mesh(num_devices, "rows")
    return interpolate.fit(X, Y, KERNEL, dtype=dtype, mesh=mesh)


@pytest.mark.parametrize("num_devices", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fitted_model(num_devices, dtype):
    model = fitted(num_devices, dtype)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict(Z), model.predict(Z))
        assert type(again.system.backend) is type(model.system.backend)
        assert again.certificate == model.certificate and again.seconds == model.seconds
        assert again.error(X, Y) == 0


@pytest.mark.parametrize("num_devices", [1, 2])
def test_models_of_features_and_of_centers(num_devices):
    with jax.enable_x64(True):
        backend = cholesky.make_backend(40, "float64", sharding.device_mesh(num_devices, "rows"))
        for system in (
            systems.FeatureSystem(features, X, backend),
            systems.CentersSystem(KERNEL, X[::2] + 0.1, X, backend, block=7),
        ):
            model = interpolate.solve(system, np.eye(3)[Y], Y, ridge=0.1)
            again = pickle.loads(pickle.dumps(model))
            np.testing.assert_array_equal(again.predict(Z), model.predict(Z))


def test_fewer_devices_predict_the_same_up_to_rounding(monkeypatch, caplog):
    model = fitted(3, "float64")
    pickled, two = pickle.dumps(model), jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda *_: two)
    again = pickle.loads(pickled)
    assert again.system.backend.mesh.size == 2
    assert "made on 3 cpu devices, but this program has 2" in caplog.text
    np.testing.assert_allclose(again.predict(Z), model.predict(Z), rtol=1e-10)
