"""The factorization against SciPy and planted solutions, on one device and several, in one process and two."""

import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest
import scipy.linalg

from benchmarks import cholesky as benchmark
from rethinking.errors import InputError
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
    make_panel = lambda storage, g: backend.gram_panel(storage, KERNEL, dealt, RIDGE, g)  # noqa: E731
    return KERNEL(x, x) + RIDGE * np.eye(n), make_panel, dealt


def lower(factor):
    """L as a dense matrix."""
    places = factor.backend.layout
    whole = np.zeros((places.size, places.size))
    if isinstance(factor.backend, BlasBackend):
        for g, panel in enumerate(factor.storage):
            whole[g * places.width : places.n, places.columns(g)] = panel
        return whole[: places.n, : places.n]
    tiles = np.asarray(factor.storage).reshape(places.num_devices, -1, places.block, places.width)
    order = places.order.reshape(places.num_devices, places.num_panels, places.block)
    for g in range(places.num_panels):
        for slot in range(g, places.num_panels):
            for device in range(places.num_devices):
                columns = slice(g * places.width, (g + 1) * places.width)
                whole[order[device, slot], columns] = tiles[device, places.tile(g, slot)]
    return whole[: places.n, : places.n]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "n, num_devices",
    [
        *((n, 0) for n in (1, 2, 63, 64, 65, 300)),
        (1, 1),
        (1, 8),
        (2, 3),
        (63, 2),
        (64, 8),
        (65, 3),
        (300, 1),
    ],
)
def test_factor_and_solution_are_scipys(n, num_devices, dtype):
    with jax.enable_x64(dtype == "float64"):
        backend = make_backend(n, dtype, num_devices, num_panels=5 if n > 10 else 0)
        matrix, panel, dealt = make_system(n, backend)
        factor = cholesky.factor(panel, backend)
        planted = np.random.default_rng(0).standard_normal((n, 3))
        solution = factor.solve(matrix @ planted)
        tolerance = 1e-13 if dtype == "float64" else 2e-6
        found = lower(factor)
        np.testing.assert_allclose(
            found, scipy.linalg.cholesky(matrix, lower=True), atol=30 * tolerance
        )
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
    # Unit vectors, all independent but one, which is the sum of two before it or zero.
    vectors = np.eye(100)
    vectors[bad] = vectors[max(bad - 2, 0)] + vectors[max(bad - 1, 0)] if bad else 0.0
    with jax.enable_x64(True):
        backend = make_backend(100, "float64", num_devices, num_panels=4)
        dealt = backend.deal(vectors)
        with pytest.raises(cholesky.NotPositiveDefiniteError, match="ridge") as error:
            cholesky.factor(
                lambda storage, g: backend.gram_panel(storage, gram.Linear(), dealt, 0.0, g),
                backend,
            )
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


def test_work_is_close_to_a_third_of_n_cubed():
    for num_devices in (1, 4, 16, 64, 256):
        assert benchmark.count(60_000, num_devices, 4)["work"] < 1.15


def test_programs_hold_little_beside_the_matrix():
    backend = make_backend(2048, "float32", 2, num_panels=16)
    places = backend.layout
    tiles = jax.ShapeDtypeStruct(
        (places.num_tiles * 2, places.block, places.width),
        np.float32,
        sharding=jax.sharding.NamedSharding(backend.mesh, backend.dealt),
    )
    program = backend.program("update", backend.update, 1, 1, donate=True)
    used = program.lower(tiles, jax.ShapeDtypeStruct((), np.int32)).compile().memory_analysis()
    assert used.alias_size_in_bytes == used.argument_size_in_bytes - 4  # in place
    assert used.temp_size_in_bytes < 8 * places.width**2 * 4


def test_bad_sizes_and_dtypes_are_refused():
    with pytest.raises(InputError, match="n = 0"):
        cholesky.make_backend(0, "float64")
    with pytest.raises(InputError, match="bfloat16"):
        cholesky.make_backend(10, "bfloat16")


def test_what_a_tpu_has_no_numbers_for_is_computed_by_its_host():
    devices = np.array([mock.Mock(platform="tpu")])
    mesh = mock.Mock(spec=jax.sharding.Mesh, size=8, axis_names=("rows",), devices=devices)
    assert isinstance(cholesky.make_backend(100, "float64", mesh), BlasBackend)
    single = cholesky.make_backend(100, "float32", mesh)
    assert single.layout.num_devices == 8 and isinstance(cholesky.in_float64(single), BlasBackend)


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


@pytest.mark.parametrize("name", ["scipy", "jax"])
def test_peers_are_measured_and_a_wrong_factor_is_seen(name, monkeypatch):
    factor = getattr(benchmark, f"_{name}")

    def timed(matrix):
        seconds, lower = factor(matrix)
        assert seconds > 0
        return 1e-3, lower

    monkeypatch.setattr(benchmark, f"_{name}", timed)
    with jax.enable_x64(True):
        line = benchmark.time_peer(name, 200, "float64", 1)
        assert line["error"] == "" and line["gflops"] == 2.7  # 200^3 / 3 / 1e-3 / 1e9
        monkeypatch.setattr(benchmark, f"_{name}", lambda matrix: (1.0, 2 * np.eye(200)))
        assert "last row is wrong by 2.999" in benchmark.time_peer(name, 200, "float64", 1)["error"]


@pytest.mark.parametrize("width", [100, 256, 300])
def test_substitution_in_a_loop_as_on_a_tpu(width, monkeypatch):
    backend = make_backend(width, "float32", 1)
    lower = np.linalg.cholesky(np.eye(width) + 0.01 * np.ones((width, width))).astype(np.float32)
    right = np.random.default_rng(0).standard_normal((width, 20)).astype(np.float32)
    monkeypatch.setattr(backend, "platform", "tpu")
    for transposed in (False, True):
        exact = scipy.linalg.solve_triangular(lower, right, trans=int(transposed), lower=True)
        found = backend._solve(jax.numpy.asarray(lower), jax.numpy.asarray(right), transposed)
        np.testing.assert_allclose(found, exact, atol=1e-5)
