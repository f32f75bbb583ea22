"""How several runs at once share GPUs, TPU chips and fake devices."""

import json
import math
import os
import time

import pytest

from launch import devices, jobs, workers
from rethinking import accelerator
from rethinking.errors import InputError
from tests.launch.programs import put_program

EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
CARDS = "for card in {0..7}; do echo NVIDIA H200, 580.65, 143771, 143000, 9.0; done"
FRACTION, OLD_FRACTION = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"


def gpus(shares, name="CUDA_VISIBLE_DEVICES"):
    return [variables.get(name) for variables in shares.environments]


@pytest.mark.parametrize(
    "parallel, visible, dealt",
    [
        (4, "0,1,2,3,4,5,6,7", ["0,1", "2,3", "4,5", "6,7"]),
        (3, "0,1,2,3,4,5,6,7", ["0,1", "2,3", "4,5"]),  # as many for each run
        (2, "5,GPU-7f", ["5", "GPU-7f"]),
        (2, "4,-1,5", ["4", "4"]),  # CUDA ignores what follows -1
        (5, "4,6", ["4", "6", "4", "6", "4"]),
    ],
)
def test_gpus_are_dealt_out_in_equal_parts(parallel, visible, dealt):
    assert gpus(devices.share(parallel, {"CUDA_VISIBLE_DEVICES": visible})) == dealt


@pytest.mark.parametrize(
    "script, platforms, dealt",
    [
        (CARDS, "", ["0,1,2,3", "4,5,6,7"]),
        (CARDS, "cuda,cpu", ["0,1,2,3", "4,5,6,7"]),
        (CARDS, "cpu", [None, None]),
        ("echo NVIDIA-SMI has failed; exit 9", "", [None, None]),
    ],
)
def test_nvidia_smi_says_which_gpus_there_are(script, platforms, dealt, tmp_path, monkeypatch):
    put_program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    shares = devices.share(2, {"JAX_PLATFORMS": platforms})
    assert gpus(shares) == dealt
    # Without it, CUDA counts the fastest card first, and nvidia-smi does not.
    assert gpus(shares, "CUDA_DEVICE_ORDER") == [dealt[0] and "PCI_BUS_ID"] * 2


def test_runs_on_one_gpu_share_its_memory():
    one = {"CUDA_VISIBLE_DEVICES": "0"}
    assert gpus(devices.share(2, one), FRACTION) == ["0.450", "0.450"]
    assert gpus(devices.share(9, EIGHT), FRACTION) == ["0.450"] * 9  # two of them share the first
    assert gpus(devices.share(8, EIGHT), FRACTION) == [None] * 8
    for name in (FRACTION, OLD_FRACTION):
        for environment in (one, {"JAX_PLATFORMS": "cpu"}, {}):
            given = environment | {name: "0.4"}
            for variables in devices.share(2, given).environments:
                # JAX refuses both variables at once.
                assert {FRACTION, OLD_FRACTION} & (given | variables).keys() == {name}
    hungry = one | {FRACTION: "0.75"}
    with pytest.raises(InputError, match=r"Choose at most 0\.50, or unset"):
        devices.share(2, hungry)
    assert devices.share(2, hungry | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
    with pytest.raises(InputError, match=f"both set.*Unset {OLD_FRACTION}"):
        devices.share(2, hungry | {OLD_FRACTION: "0.3"})
    with pytest.raises(InputError, match="must be a number"):
        devices.share(2, one | {FRACTION: "half"})


def test_each_run_has_a_tpu_chip_of_its_own(monkeypatch):
    monkeypatch.setattr(accelerator, "num_tpus", lambda: 4)
    shares = devices.share(3, {})
    assert shares.per_run == 1
    assert gpus(shares, "TPU_VISIBLE_CHIPS") == ["0", "1", "2"]
    assert set(gpus(shares, "TPU_CHIPS_PER_PROCESS_BOUNDS")) == {"1,1,1"}
    assert len(set(gpus(shares, "TPU_PROCESS_PORT"))) == 3
    assert gpus(devices.share(2, {"TPU_VISIBLE_CHIPS": "2,3"}), "TPU_VISIBLE_CHIPS") == ["2", "3"]
    with pytest.raises(InputError, match=r"4 TPU chips.*Choose at most 4"):
        devices.share(5, {})


def test_fake_devices_are_divided():
    eight = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--x --xla_force_host_platform_device_count=8"}
    shares = devices.share(4, eight)
    assert shares.per_run == 2
    flags = shares.environments[3]["XLA_FLAGS"]
    assert flags.endswith("=8 --xla_force_host_platform_device_count=2")  # the last one counts


def test_a_run_that_asks_for_more_than_its_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv(*next(iter(EIGHT.items())))
    planned = jobs.plan("configs/quickstart.py", tmp_path, overrides=["--config.num_devices=4"])
    with pytest.raises(InputError, match="with --parallel=4, each run has 2 of the 8 GPUs"):
        next(workers.run_all(planned, 4, math.inf, tmp_path / "logs"))


@pytest.mark.parametrize(
    "parallel, given, idle",
    [
        (1, [], 7),
        (8, [], 0),
        (3, ["--config.num_devices=2"], 2),
        (1, ["--config.num_devices=8"], 0),
    ],
)
def test_a_sweep_says_how_many_gpus_are_idle(parallel, given, idle, tmp_path):
    planned = jobs.plan("configs/quickstart.py", tmp_path, seeds=2, overrides=given)
    said = devices.idle(planned, parallel, EIGHT)
    assert said.startswith(f"{idle} of the 8 GPUs are idle." if idle else "")
    assert bool(said) == bool(idle)


def note_variables(job, deadline):
    """In place of `run_job`: writes down the variables of a worker, once all four are there."""
    job.workdir.mkdir(parents=True)
    names = ("CUDA_VISIBLE_DEVICES", "XLA_CLIENT_MEM_FRACTION")
    (job.workdir / "there").write_text(json.dumps([os.environ.get(name) for name in names]))
    while len(list(job.workdir.parents[1].rglob("there"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    return "done"


def test_each_worker_gets_its_own_gpus(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv(*next(iter(EIGHT.items())))
    monkeypatch.setattr(workers, "run_job", note_variables)
    planned = jobs.plan("configs/quickstart.py", tmp_path, rows="labels|pixels")
    ended = list(workers.run_all(planned, 4, time.monotonic() + 60, tmp_path / "logs"))
    assert [how for _, how in ended] == ["done"] * 4
    dealt = [json.loads(file.read_text()) for file in tmp_path.rglob("there")]
    assert sorted(dealt) == [["0,1", None], ["2,3", None], ["4,5", None], ["6,7", None]]
