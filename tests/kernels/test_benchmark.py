"""The benchmark of the Cholesky factorization: what it measures, counts and refuses."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import cholesky as benchmark
from rethinking.kernels import layout


def test_work_is_close_to_a_third_of_n_cubed():
    for num_devices in (1, 4, 16, 64, 256):
        assert benchmark.count(60_000, num_devices, 4)["work"] < 1.15


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


@pytest.mark.parametrize(
    "arguments, said",
    [(["--peers=scipi"], "Did you mean 'scipy'"), (["--num_devices=99"], "num_devices=99")],
)
def test_bad_flags_are_refused(arguments, said):
    command = [sys.executable, "-m", "benchmarks.cholesky", "--n=100", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert ended.returncode == 2 and said in ended.stderr


def test_measures_itself_and_its_peers():
    command = [
        sys.executable,
        "-m",
        "benchmarks.cholesky",
        "--n=1000",
        "--peers=scipy",
        "--num_panels=3",
        "--num_devices=2",
    ]
    printed = subprocess.check_output(command, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    ours, scipy = map(json.loads, printed.splitlines())
    assert ours["num_panels"] == 3 and ours["num_devices"] == 2
    assert scipy["peer"] == "scipy" and scipy["error"] == ""
    for line in (ours, scipy):
        assert line["n"] == 1000
        # Both are printed with few digits.
        assert line["gflops"] == pytest.approx(1 / 3 / line["seconds"], rel=0.2, abs=0.1)


def test_memory_of_the_programs_is_counted(monkeypatch):
    topology = SimpleNamespace(devices=jax.devices()[:2])
    monkeypatch.setattr(benchmark.topologies, "get_topology_desc", lambda **_: topology)
    lines = list(benchmark.compile_for("v5e:1x2", 8192, "float32"))
    assert [line["program"] for line in lines] == ["update", "diagonal block", "below"]
    matrix = layout.make(8192, 2).entries * 4 / 1e9
    for line in lines:
        assert line["matrix_gb_per_chip"] == round(matrix, 3)
        # The matrix, and not twice: the programs overwrite it.
        assert matrix - 1e-3 < line["gb_per_chip"] < 1.2 * matrix
