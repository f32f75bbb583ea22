"""The benchmark of the Cholesky factorization: what it measures, counts and refuses."""

import importlib
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import cholesky as benchmark
from benchmarks import processes
from rethinking.errors import InputError
from rethinking.kernels import cholesky


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


def flag_values(**values):
    if "peers" not in flags.FLAGS:  # tests.started.call has removed them
        importlib.reload(benchmark)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["benchmarks.cholesky"])
    return flagsaver.flagsaver(**values)


def test_an_unknown_peer_is_refused_before_anything_is_measured():
    with flag_values(peers=["scipi"]), pytest.raises(InputError, match="Did you mean 'scipy'"):
        next(benchmark._lines())


def test_too_many_devices_are_refused(monkeypatch, capsys):
    """Here and not in another process, from which a later test gets an InputError too."""
    monkeypatch.setattr(processes, "call", lambda function, *arguments: function(*arguments))
    with flag_values(n=100, num_devices=99), pytest.raises(SystemExit) as ended:
        benchmark.main(["benchmarks.cholesky"])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and "num_devices=99" in printed.err and not printed.out


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


def refuse():
    raise cholesky.NotPositiveDefiniteError(7, "float32")


def test_a_process_that_crashes_ends_alone():
    with pytest.raises(processes.DiedError, match="ended with SIGSEGV"):
        processes.call(signal.raise_signal, signal.SIGSEGV)
    with pytest.raises(processes.DiedError, match="ended with exit code 3"):
        processes.call(os._exit, 3)
    with pytest.raises(cholesky.NotPositiveDefiniteError, match="pivot 7") as refused:
        processes.call(refuse)
    assert refused.value.pivot == 7


def test_a_peer_that_crashes_is_one_line_and_ours_is_measured(monkeypatch):
    def call(_, dtype, function, *arguments):
        if arguments[0] == "scipy":
            raise processes.DiedError(-signal.SIGSEGV)
        return {"measured": [function.__name__, dtype, *arguments]}

    monkeypatch.setattr(processes, "call", call)
    with flag_values(n=50, repeats=1, peers=["scipy", "jax"]):
        ours, scipy, other = benchmark._lines()
    assert ours == {"measured": ["time_factor", "float64", 50, "float64", 0, 0, 1]}
    error = "its process ended with SIGSEGV"
    assert scipy == {"peer": "scipy", "n": 50, "dtype": "float64", "error": error}
    assert other == {"measured": ["time_peer", "float64", "jax", 50, "float64", 1]}
