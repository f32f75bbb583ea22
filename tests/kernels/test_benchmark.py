"""The benchmark of the Cholesky factorization: what it measures, counts and refuses."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import cholesky as benchmark


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
        "--n=300",
        "--peers=scipy",
        "--num_panels=3",
    ]
    printed = subprocess.check_output(command, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    ours, scipy = map(json.loads, printed.splitlines())
    assert ours["num_panels"] == 3 and ours["num_devices"] == jax.device_count()
    assert scipy["peer"] == "scipy" and scipy["error"] == ""
    for line in (ours, scipy):
        assert line["n"] == 300 and line["gflops"] > 0
