"""The factorization against SciPy and planted solutions, on one device and several, in one process and two."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.linalg

from rethinking.config import ConfigError
from rethinking.kernels import cholesky, gram, layout
from rethinking.kernels.blas import BlasBackend
from rethinking.kernels.sharded import ShardedBackend

KERNEL = gram.Laplacian(2.0)
RIDGE = 0.1


def make_mesh(num_devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("rows",))


def make_backend(n, dtype, num_devices, num_panels=0):
    """Without devices: SciPy's BLAS."""
    if not num_devices:
        return BlasBackend(layout.make(n, 1, num_panels), dtype)
    return ShardedBackend(layout.make(n, num_devices, num_panels), dtype, make_mesh(num_devices))


def make_system(n, backend, features=5):
    x = np.random.default_rng(n).standard_normal((n, features))
    dealt = backend.deal(x)
    return KERNEL(x, x) + RIDGE * np.eye(n), lambda g: backend.gram_panel(KERNEL, dealt, RIDGE, g), dealt


def lower(factor):
    """L as a dense matrix, by its own product: L = A L^-T for A = L L^T would not show a wrong L."""
    places = factor.backend.layout
    whole = np.zeros((places.size, places.size))
    for g, panel in enumerate(factor.panels):
        rows = np.asarray(panel).reshape(places.num_devices, -1, places.widths[g])
        for device in range(places.num_devices):
            own = places.order.reshape(places.num_devices, -1)[device, places.start(g) :]
            whole[own, places.columns(g)] = rows[device]
    return np.tril(whole)[: places.n, : places.n]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n, num_devices", [
    *((n, 0) for n in (1, 2, 63, 64, 65, 300)), (1, 1), (1, 8), (2, 3), (63, 2), (64, 8), (65, 3), (300, 1),
])  # fmt: skip
def test_factor_and_solution_are_scipys(n, num_devices, dtype):
    with jax.enable_x64(dtype == "float64"):
        backend = make_backend(n, dtype, num_devices, num_panels=5 if n > 10 else 0)
        matrix, panel, dealt = make_system(n, backend)
        factor = cholesky.factor(panel, backend)
        planted = np.random.default_rng(0).standard_normal((n, 3))
        solution = factor.solve(matrix @ planted)
        tolerance = 1e-13 if dtype == "float64" else 2e-6
        found = lower(factor)
        np.testing.assert_allclose(found, scipy.linalg.cholesky(matrix, lower=True), atol=30 * tolerance)
        np.testing.assert_allclose(found @ found.T, matrix, atol=tolerance * 3)
        np.testing.assert_allclose(solution, planted, atol=tolerance * np.linalg.cond(matrix))
        np.testing.assert_allclose(factor.multiply(planted), matrix @ planted, atol=tolerance * 100)
        product = backend.gram_product(KERNEL, dealt, RIDGE, planted)
        np.testing.assert_allclose(product, matrix @ planted, atol=tolerance * 100)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65])
def test_every_number_of_devices(n, num_devices, dtype):
    test_factor_and_solution_are_scipys(n, num_devices, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_devices", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("n", [1000, 3001])
def test_larger_systems(n, num_devices, dtype):
    test_factor_and_solution_are_scipys(n, num_devices, dtype)


@pytest.mark.parametrize("num_devices", [0, 3])
def test_condition_is_estimated_from_below_and_closely(num_devices):
    with jax.enable_x64(True):
        backend = make_backend(100, "float64", num_devices)
        matrix, panel, _ = make_system(100, backend)
        exact = np.linalg.cond(matrix, 1)
        assert exact / 3 < cholesky.factor(panel, backend).condition < exact * 1.001


@pytest.mark.parametrize("num_devices, bad", [(0, 0), (0, 37), (0, 99), (1, 99), (3, 37)])
def test_first_bad_pivot_is_named(num_devices, bad):
    matrix = np.eye(100)
    matrix[bad, bad] = -1.0
    with jax.enable_x64(True):
        backend = make_backend(100, "float64", num_devices, num_panels=4)
        places = backend.layout

        def panel(g):
            padded = np.eye(places.size)
            padded[:100, :100] = matrix
            rows = padded[places.offsets[g] :, places.columns(g)]
            if not num_devices:
                return np.ascontiguousarray(rows)
            order = places.order.reshape(num_devices, -1)[:, places.start(g) :].ravel() - places.offsets[g]
            return jax.device_put(rows[order], jax.sharding.NamedSharding(backend.mesh, backend.rows))

        with pytest.raises(cholesky.NotPositiveDefiniteError, match="ridge") as error:
            cholesky.factor(panel, backend)
    assert error.value.pivot == bad


@pytest.mark.parametrize("num_devices, n", [(1, 60_000), (3, 1001), (16, 60_000), (256, 60_000), (8, 3)])
def test_layout_deals_every_row_once_and_evenly(num_devices, n):
    places = layout.make(n, num_devices)
    assert sorted(places.order) == list(range(places.size))
    assert 0 <= places.size - n < num_devices
    owner = np.empty(places.size, int)
    owner[places.order] = np.repeat(np.arange(num_devices), places.size // num_devices)
    for g in range(places.num_panels):
        assert (np.bincount(owner[places.columns(g)], minlength=num_devices) == places.block(g)).all()


def test_memory_per_device_falls_as_one_over_their_number():
    for num_devices in (1, 4, 16, 64, 256):
        entries = layout.make(60_000, num_devices).entries
        assert 60_000**2 / 2 <= entries * num_devices <= 60_000**2 / 2 * 1.04


def count_operations(places):
    """Floating-point operations of all devices together: updates, triangular solves and diagonal blocks."""
    work = 0
    for g, width in enumerate(places.widths):
        rows = places.height(g) * places.num_devices
        work += 2 * rows * places.offsets[g] * width + (rows - width) * width**2 + places.num_devices * width**3 / 3
    return work


def test_work_is_close_to_a_third_of_n_cubed():
    for num_devices in (1, 16, 256):
        assert count_operations(layout.make(60_000, num_devices)) < 1.15 * 60_000**3 / 3


def test_compiled_work_is_what_is_counted():
    backend = make_backend(256, "float32", 2, num_panels=4)
    shapes = [jax.ShapeDtypeStruct((backend.layout.height(g) * 2, backend.layout.widths[g]), np.float32,
                                   sharding=jax.sharding.NamedSharding(backend.mesh, backend.rows)) for g in range(4)]
    compiled = backend.factor_programs(2)[0].lower(shapes[2], *shapes[:2]).compile()
    # XLA counts the products, of this device; LAPACK's calls it does not see.
    products = 2 * backend.layout.height(2) * backend.layout.offsets[2] * backend.layout.widths[2]
    assert compiled.cost_analysis()["flops"] == pytest.approx(products, rel=0.1)


def test_bad_sizes_and_dtypes_are_refused():
    with pytest.raises(ConfigError, match="n = 0"):
        cholesky.make_backend(0, "float64")
    with pytest.raises(ConfigError, match="bfloat16"):
        cholesky.make_backend(10, "bfloat16")


def test_two_processes_agree_with_one(tmp_path):
    program = pathlib.Path(__file__).parent / "two_process_cholesky.py"
    command = [sys.executable, program]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
                 for rank in range(2)]  # fmt: skip
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read()
    x = np.random.default_rng(0).standard_normal((101, 4))
    y = np.random.default_rng(1).standard_normal((101, 2))
    exact = scipy.linalg.solve(KERNEL(x, x) + RIDGE * np.eye(101), y, assume_a="pos")
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), exact, atol=1e-12)


@pytest.mark.parametrize("width", [100, 256, 300])
def test_rows_solved_in_a_loop_as_on_a_tpu(width, monkeypatch):
    backend = make_backend(width, "float32", 1)
    lower = np.linalg.cholesky(np.eye(width) + 0.01 * np.ones((width, width))).astype(np.float32)
    rows = np.random.default_rng(0).standard_normal((20, width)).astype(np.float32)
    monkeypatch.setattr(backend, "platform", "tpu")
    exact = scipy.linalg.solve_triangular(lower, rows.T, lower=True).T
    np.testing.assert_allclose(backend._solve_rows(*map(jax.numpy.asarray, (lower, rows))), exact, atol=1e-5)
