"""launch.sweep --dry_run: the work of each run, its time on a device, and what runs took."""

import os

import pytest

from launch import devices, estimate, jobs
from rethinking import accelerator, experiments, runs
from rethinking.chips import FULL_FLOAT32
from rethinking.errors import InputError
from rethinking.experiments import work
from rethinking.experiments.work import Part
from tests.launch.programs import put_program

PRODUCT = Part("training", times=100, flops=3e12, bytes=0, kernels=0, dtype="float32")


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch):
    monkeypatch.setattr(estimate, "product_rate", {"float32": 2e11, "float64": 1e11}.get)


@pytest.mark.parametrize(
    "device, part, seconds",
    [
        # A GPU's tensor cores at 30% of 494, 989 and 67 TFLOP/s.
        ("h200", PRODUCT, 300 / (0.3 * 494)),
        ("H100", PRODUCT._replace(dtype="bfloat16"), 300 / (0.3 * 989)),
        ("h200", PRODUCT._replace(dtype="float64"), 300 / (0.3 * 67)),
        # Kernel systems multiply at full precision: not on the tensor cores.
        ("h200", PRODUCT._replace(dtype=FULL_FLOAT32), 300 / (0.3 * 67)),
        ("v5e", PRODUCT._replace(dtype=FULL_FLOAT32), 300 / (0.3 * 197 / 6)),
        ("v5e", PRODUCT, 300 / (0.3 * 197)),
        ("v5e", PRODUCT._replace(dtype="float64"), None),  # a TPU has no float64
        # 96 GB of memory at 50% of 4.8 TB/s take longer than the products.
        ("h200", PRODUCT._replace(bytes=96e9), 100 * 0.04),
        ("h200", PRODUCT._replace(kernels=10_000), 100 * 0.025),
        ("v5p", PRODUCT._replace(kernels=10_000), 300 / (0.3 * 459)),
        # This CPU's products at 200 GFLOP/s.
        ("cpu", PRODUCT, 100 * 15 / 0.8),
        ("cpu", PRODUCT._replace(convolves=True), 100 * 15 / 0.33),
        ("cpu", PRODUCT._replace(dtype="float64"), 100 * 30 / 0.8),
        ("cpu", PRODUCT._replace(dtype="bfloat16", bytes=1e12), 100 * 15 / 0.8),
    ],
)
def test_the_slowest_of_operations_memory_and_launches_counts(device, part, seconds):
    found = estimate.find_device(device, {}).seconds(part)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "gpu, platforms, name",
    [
        ("NVIDIA H100 80GB HBM3", "", "one NVIDIA H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3", "cpu", "this CPU"),
        ("Voodoo 2", "", "one Voodoo 2"),
        ("", "", "this CPU"),
    ],
)
def test_the_device_at_hand_is_found(gpu, platforms, name, tmp_path, monkeypatch):
    script = f'echo "{gpu}, 580.65, 81559, 81000, 9.0"' if gpu else "exit 9"
    put_program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = estimate.find_device(None, {"JAX_PLATFORMS": platforms})
    assert found.name.startswith(name)
    assert (found.seconds(PRODUCT) is None) == (gpu == "Voodoo 2")


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match=r"--device=h300: unknown device.*Did you mean 'h"):
        estimate.find_device("h300", {})


def test_the_tpu_at_hand_is_found(monkeypatch):
    class Version:
        name = "v5e"

    ask = "jax._src.hardware_utils.num_available_tpu_chips_and_device_id"
    monkeypatch.setattr(ask, lambda: (4, Version))
    monkeypatch.setattr(accelerator, "num_tpus", lambda: 4)
    assert devices.kind({}) == "TPU v5 lite"


def test_the_lines_have_work_times_sums_and_what_finished_runs_took(tmp_path, monkeypatch):
    def count(config):
        if config.randomize.pixels == "gaussian":
            raise InputError("no such data")
        return [PRODUCT._replace(times=720)]

    monkeypatch.setattr(work, "count", count)
    planned = jobs.plan("configs/quickstart.py", tmp_path, rows="labels|gaussian", seeds=2)
    with runs.open_run(planned[0].workdir, planned[0].config, experiments.scientific) as directory:
        directory.finish({"status": "complete", "seconds": 7200.0, "device": "an abacus"})
    planned = jobs.plan("configs/quickstart.py", tmp_path, rows="labels|gaussian", seeds=2)
    found = list(estimate.lines(planned, estimate.find_device("cpu", {})))
    # 720 * 3 TFLOP at 160 GFLOP/s, and ten seconds.
    assert found[:4] == [
        "quickstart:true_labels seed 0: finished, 2.16 PFLOP, about 3.8 h; took 2.0 h on an abacus",
        "quickstart:random_labels seed 0: to do, 2.16 PFLOP, about 3.8 h",
        "quickstart:gaussian seed 0: to do, no such data",
        "quickstart:true_labels seed 1: to do, 2.16 PFLOP, about 3.8 h",
    ]
    assert found[6].startswith("Runs to make, 5: 6.48 PFLOP, about 11.3 h on this CPU")
    assert found[6].endswith("The time of 2 of them is not known.")
    assert "200 GFLOP/s in float32 and 100 in float64" in found[8]
    assert found[9] == "Finished runs took 2.0 h on an abacus."


@pytest.mark.parametrize(
    "number, words",
    [
        (12.0, "12 s"),
        (119.0, "119 s"),
        (120.0, "2.0 min"),
        (7200.0, "2.0 h"),
        (172_800, "2.0 days"),
    ],
)
def test_times_are_in_words(number, words):
    assert estimate.duration(number) == words


def test_the_rate_of_a_cpu_is_that_of_its_products(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(estimate, "_SIDE", 64)
    assert 1e6 < estimate.product_rate("float32") < 1e15
