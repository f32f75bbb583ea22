"""Features that are multiplied in float32 and summed in float64."""

import jax
import numpy as np
import pytest

from rethinking import cli, experiments, sharding
from rethinking.errors import InputError
from rethinking.kernels import cholesky, interpolate, systems

N, NUM_BLOCKS = 30, 3
# Its square has 41 bits, of which float32 keeps 24.
VALUE = 1 + 2.0**-20


def make_backend(num_devices):
    return cholesky.make_backend(N, "float64", sharding.device_mesh(num_devices, "rows"), 4)


def first_entry(backend, blocks, dtype):
    """The sum for the first example with itself."""
    storage = backend.zeros()
    for block in blocks:
        storage = backend.add_product(storage, block, dtype)
    return backend.get_panel(storage, 0).ravel()[0]


@pytest.mark.parametrize("num_devices", [1, 3])
def test_a_product_is_rounded_to_float32_and_the_sum_is_not(num_devices):
    with jax.enable_x64(True):
        backend = make_backend(num_devices)
        ones = [np.full((N, 1), VALUE, np.float32)] * NUM_BLOCKS
        rounded, exact = float(np.float32(VALUE**2)), VALUE**2
        assert first_entry(backend, ones, "float32") == NUM_BLOCKS * rounded
        assert first_entry(backend, ones, None) == pytest.approx(NUM_BLOCKS * exact, rel=1e-15)
        # Each product is a number of float32, and their sum is not.
        large = [np.full((N, 1), root, np.float32) for root in (2.0**14, 1.0, 1.0)]
        assert first_entry(backend, large, "float32") == 2.0**28 + 2


@pytest.mark.parametrize("num_devices", [1, 3])
def test_the_solution_is_that_of_float64(num_devices):
    """A well-conditioned system: refinement takes products with the features in float64."""
    features = np.random.default_rng(0).standard_normal((N, 90)).astype(np.float32)
    targets = np.eye(3)[np.arange(N) % 3]

    def blocks(rows, first=0):
        for start in range(10 * first, 90, 10):
            yield features[np.asarray(rows, np.int64)[:, 0], start : start + 10]

    solved = []
    with jax.enable_x64(True):
        for dtype in (None, "float32"):
            system = systems.FeatureSystem(
                blocks, np.arange(N)[:, None], make_backend(num_devices), product_dtype=dtype
            )
            solved.append(interpolate.solve(system, targets))
    exact, mixed = solved
    assert (exact.certificate.residual < 1e-12) and (mixed.certificate.residual < 1e-10)
    np.testing.assert_allclose(mixed.alpha, exact.alpha, rtol=1e-7, atol=1e-9)
    assert mixed.certificate.norm == pytest.approx(exact.certificate.norm, rel=1e-9)


def test_a_row_without_such_a_product_refuses_the_field():
    field = "--config.features.product_dtype=float32"
    row = "--config=configs/table3.py:cifar10+random_conv+ridge"
    experiments.check(cli.parse_config([row, field]))
    with pytest.raises(InputError, match=r"has no effect with config\.dtype=float32"):
        experiments.check(cli.parse_config([row, field, "--config.dtype=float32"]))
    with pytest.raises(InputError, match=r"has no effect with config\.features\.name=pixels"):
        experiments.check(cli.parse_config(["--config=configs/table3.py:mnist", field]))
