"""The factorization against SciPy and planted solutions, on one or more devices and processes."""

import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest
import scipy.linalg

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import cholesky, gram, layout, triangular
from rethinking.kernels.blas import BlasBackend
from rethinking.kernels.sharded import ShardedBackend

KERNEL = gram.Laplacian(2.0)
RIDGE = 0.1


def make_backend(n, dtype, num_devices, num_panels=0):
    """A backend on `num_devices` devices by JAX; 0 means SciPy's BLAS."""
    places = layout.make(n, num_devices or 1, num_panels)
    if not num_devices:
        return BlasBackend(places, dtype)
    return ShardedBackend(places, dtype, sharding.device_mesh(num_devices, "rows"))


def make_system(n, backend, features=5):
    x = np.random.default_rng(n).standard_normal((n, features))
    distributed = backend.distribute(x)

    def make_panel(storage, g):
        return backend.gram_panel(storage, KERNEL, distributed, RIDGE, g)

    return KERNEL(x, x) + RIDGE * np.eye(n), make_panel, distributed


def lower_from_panels(factor):
    """L as a dense matrix, from the panels of SciPy's BLAS."""
    places = factor.backend.layout
    whole = np.zeros((places.n, places.n))
    for g, panel in enumerate(factor.storage):
        whole[g * places.width :, places.columns(g)] = panel
    return whole


def lower_from_tiles(factor):
    """L as a dense matrix, from the tiles of all devices."""
    places = factor.backend.layout
    whole = np.zeros((places.size, places.size))
    tiles = np.asarray(factor.storage).reshape(places.num_devices, -1, places.block, places.width)
    order = places.order.reshape(places.num_devices, places.num_panels, places.block)
    for g in range(places.num_panels):
        for slot in range(g, places.num_panels):
            for device in range(places.num_devices):
                columns = slice(g * places.width, (g + 1) * places.width)
                whole[order[device, slot], columns] = tiles[device, places.tile(g, slot)]
    return whole[: places.n, : places.n]


@pytest.mark.parametrize(
    "n, num_devices, dtype",
    [
        *((n, 0, dtype) for n in (1, 64, 65, 300) for dtype in ("float64", "float32")),
        (1, 8, "float64"),
        (64, 8, "float64"),
        (64, 8, "float32"),
        (65, 3, "float64"),
        (300, 1, "float32"),
    ],
)
def test_factor_and_solution_are_scipys(n, num_devices, dtype):
    with jax.enable_x64(dtype == "float64"):
        backend = make_backend(n, dtype, num_devices, num_panels=5 if n > 10 else 0)
        matrix, make_panel, distributed = make_system(n, backend)
        factor = cholesky.factor(make_panel, backend)
        planted = np.random.default_rng(0).standard_normal((n, 3))
        solution = factor.solve(matrix @ planted)
        tolerance = 1e-13 if dtype == "float64" else 2e-6
        found = lower_from_tiles(factor) if num_devices else lower_from_panels(factor)
        expected = scipy.linalg.cholesky(matrix, lower=True)
        np.testing.assert_allclose(found, expected, atol=30 * tolerance)
        np.testing.assert_allclose(found @ found.T, matrix, atol=tolerance * 3)
        np.testing.assert_allclose(solution, planted, atol=tolerance * np.linalg.cond(matrix))
        np.testing.assert_allclose(factor.multiply(planted), matrix @ planted, atol=tolerance * 100)
        product = backend.gram_product(KERNEL, distributed, RIDGE, planted)
        np.testing.assert_allclose(product, matrix @ planted, atol=tolerance * 100)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_devices", [0, 1, 2, 3, 8])
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
        matrix, make_panel, _ = make_system(100, backend)
        exact = np.linalg.cond(matrix, 1)
        assert exact / 3 < cholesky.factor(make_panel, backend).condition < exact * 1.001


@pytest.mark.parametrize("num_devices, bad", [(0, 0), (0, 37), (0, 99), (1, 99), (3, 37)])
def test_first_bad_pivot_is_named(num_devices, bad):
    # All unit vectors are independent. One is replaced by the sum of two before it, or by zero.
    vectors = np.eye(100)
    vectors[bad] = vectors[max(bad - 2, 0)] + vectors[max(bad - 1, 0)] if bad else 0.0
    with jax.enable_x64(True):
        backend = make_backend(100, "float64", num_devices, num_panels=4)
        distributed = backend.distribute(vectors)

        def make_panel(storage, g):
            return backend.gram_panel(storage, gram.Linear(), distributed, 0.0, g)

        with pytest.raises(cholesky.NotPositiveDefiniteError, match="ridge") as error:
            cholesky.factor(make_panel, backend)
    assert error.value.pivot == bad


@pytest.mark.parametrize(
    "num_devices, n", [(1, 60_000), (3, 1001), (16, 60_000), (256, 60_000), (8, 3)]
)
def test_layout_deals_every_row_once_and_evenly(num_devices, n):
    places = layout.make(n, num_devices)
    assert sorted(places.order) == list(range(places.size))
    assert 0 <= places.size - n < places.width
    owner = np.empty(places.size, int)
    owner[places.order] = np.repeat(np.arange(num_devices), places.size // num_devices)
    for g in range(places.num_panels):
        slot = owner[g * places.width : (g + 1) * places.width]
        assert (np.bincount(slot, minlength=num_devices) == places.block).all()
    tiles = [
        places.tile(g, slot)
        for g in range(places.num_panels)
        for slot in range(g, places.num_panels)
    ]
    assert tiles == list(range(places.num_tiles))


def test_blocks_of_large_matrices_are_aligned_at_little_cost():
    for n in (30_000, 50_000, 60_000, 70_000):
        places = layout.make(n, 1)
        assert places.block % 16 == 0
        assert places.size < 1.005 * n
    assert layout.make(60_000, 16).block % 2 == 0


def test_memory_per_device_falls_as_one_over_their_number():
    for num_devices in (1, 4, 16, 64, 256):
        entries = layout.make(60_000, num_devices).entries
        assert 60_000**2 / 2 <= entries * num_devices <= 60_000**2 / 2 * 1.06


def test_programs_hold_little_beside_the_matrix():
    backend = make_backend(2048, "float32", 2, num_panels=16)
    places = backend.layout
    tiles = jax.ShapeDtypeStruct(
        (places.num_tiles * 2, places.block, places.width),
        np.float32,
        sharding=jax.sharding.NamedSharding(backend.mesh, backend.tiles.sharded),
    )
    program = backend.tiles.program("update", backend.update, 1, 1, donate=True)
    used = program.lower(tiles, jax.ShapeDtypeStruct((), np.int32)).compile().memory_analysis()
    assert used.alias_size_in_bytes == used.argument_size_in_bytes - 4  # in place
    assert used.temp_size_in_bytes < 8 * places.width**2 * 4


def test_bad_sizes_and_dtypes_are_refused():
    with pytest.raises(InputError, match="n = 0"):
        cholesky.make_backend(0, "float64")
    with pytest.raises(InputError, match="bfloat16"):
        cholesky.make_backend(10, "bfloat16")


def test_a_tpus_host_computes_in_float64():
    devices = np.array([mock.Mock(platform="tpu")])
    mesh = mock.Mock(spec=jax.sharding.Mesh, size=8, axis_names=("rows",), devices=devices)
    assert isinstance(cholesky.make_backend(100, "float64", mesh), BlasBackend)
    single = cholesky.make_backend(100, "float32", mesh)
    assert isinstance(single, ShardedBackend) and single.layout.num_devices == 8
    double = single.in_float64()
    assert isinstance(double, BlasBackend) and double.dtype == np.float64


@pytest.mark.parametrize("num_devices", [0, 3])
def test_other_backends_in_the_same_place(num_devices):
    with jax.enable_x64(True):
        single = make_backend(100, "float32", num_devices)
        double = single.in_float64()
        assert double.in_float64() is double
        for backend, n, dtype in (
            (double, 100, "float64"),
            (single.like(70), 70, "float32"),
            (double.like(70), 70, "float64"),
        ):
            assert type(backend) is type(single)
            assert backend.layout.n == n and backend.dtype == dtype
            assert backend.layout.num_devices == max(1, num_devices)
        matrix, make_panel, _ = make_system(70, double.like(70))
        planted = np.random.default_rng(0).standard_normal((70, 2))
        solution = cholesky.factor(make_panel, double.like(70)).solve(matrix @ planted)
    np.testing.assert_allclose(solution, planted, atol=1e-10)


def test_two_processes_agree_with_one(tmp_path):
    program = pathlib.Path(__file__).parent / "two_process_cholesky.py"
    command = [sys.executable, program]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read()
    x = np.random.default_rng(0).standard_normal((101, 4))
    y = np.random.default_rng(1).standard_normal((101, 2))
    exact = scipy.linalg.solve(KERNEL(x, x) + RIDGE * np.eye(101), y, assume_a="pos")
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), exact, atol=1e-12)


@pytest.mark.parametrize("width", [100, 256, 300])
@pytest.mark.parametrize("blocked", [False, True])
def test_triangular_solves_are_scipys(width, blocked):
    lower = np.linalg.cholesky(np.eye(width) + 0.01 * np.ones((width, width))).astype(np.float32)
    right = np.random.default_rng(0).standard_normal((width, 20)).astype(np.float32)
    for transposed in (False, True):
        exact = scipy.linalg.solve_triangular(lower, right, trans=int(transposed), lower=True)
        arguments = jax.numpy.asarray(lower), jax.numpy.asarray(right)
        found = triangular.solve_lower(*arguments, transposed, blocked)
        np.testing.assert_allclose(found, exact, atol=1e-5)
