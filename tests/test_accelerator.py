"""No run leaves an accelerator idle in silence; the message names the cause and the remedy."""

import os

import pytest

from launch import workers
from rethinking import accelerator, sharding
from rethinking.errors import InputError
from tests.stand_ins import put_nvidia_smi
from tests.test_main import DIGITS, run

H100, V100 = ("NVIDIA H100 80GB HBM3", "9.0", 79), ("Tesla V100-SXM2-16GB", "7.0", 15)


@pytest.fixture
def unasked(monkeypatch):
    """An environment in which JAX chooses its devices itself."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "CUDA_", "JAX_PLATFORMS")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def machine(unasked, tmp_path):
    """A function that gives this machine cards, and JAX a plugin."""

    def make(*cards, plugins=None, driver="580.65.06"):
        put_nvidia_smi(tmp_path, *cards, driver=driver)
        unasked.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        versions = {f"jax-cuda{cuda}-plugin": version for cuda, version in (plugins or {}).items()}
        versions["jaxlib"] = "0.10.2"
        unasked.setattr(accelerator, "installed", versions.get)

    return make


def test_nvidia_smi_is_read(machine):
    machine(H100, ("Tesla T4", "[N/A]", 1))
    first, second = accelerator.cards()
    assert first == ("NVIDIA H100 80GB HBM3", "580.65.06", 9.0, 80 * 2**30, 79 * 2**30)
    assert first.driver_branch == 580
    assert second.capability is None


@pytest.mark.parametrize(
    "card, driver, cuda",
    [
        (H100, "580.65.06", 13),
        (H100, "575.57.08", 12),
        (V100, "580.65.06", 12),  # CUDA 13 begins with compute capability 7.5
        (H100, "525.60.13", 12),
        (H100, "470.82.01", None),
    ],
)
def test_the_cuda_that_fits_depends_on_driver_and_card(card, driver, cuda, machine):
    machine(card, driver=driver)
    assert accelerator.fitting_cuda(accelerator.cards()[0]) == cuda


@pytest.mark.parametrize(
    "card, driver, plugins, reason",
    [
        (H100, "580.65.06", {}, 'without CUDA. Install it: pip install -e ".[gpu]"'),
        (H100, "550.54.15", {}, 'without CUDA. Install it: pip install -e ".[cuda12]"'),
        (
            H100,
            "550.54.15",
            {13: "0.10.2"},
            "CUDA 13 needs driver 580 and compute capability 7.5, or newer ones. Change to CUDA "
            "12: pip uninstall -y jax-cuda13-plugin jax-cuda13-pjrt && "
            'pip install -e ".[cuda12]"',
        ),
        (H100, "470.82.01", {12: "0.10.2"}, "The driver is too old: CUDA 12 needs 525"),
        (H100, "580.65.06", {13: "0.9.1"}, "version 0.9.1 does not fit jaxlib 0.10.2"),
        (
            H100,
            "580.65.06",
            {13: "0.10.2"},
            "jax-cuda13-pjrt==0.10.2 . `python -m launch.doctor` shows",
        ),
    ],
)
def test_a_card_that_would_lie_idle_is_named_with_the_remedy(
    card, driver, plugins, reason, machine
):
    machine(card, card, plugins=plugins, driver=driver)
    with pytest.raises(InputError) as refusal:
        accelerator.require_use("cpu", chosen=None)
    text = str(refusal.value)
    assert f"nvidia-smi finds 2 x {card[0]} (driver {driver}). " in text
    assert reason in text
    assert text.startswith("JAX would compute on the CPU. If you want that, set JAX_PLATFORMS=cpu.")


def test_cards_that_slurm_granted_are_missed(unasked, tmp_path):
    put_nvidia_smi(tmp_path, broken=True)
    unasked.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert accelerator.idle() is None
    unasked.setenv("SLURM_GPUS_ON_NODE", "0")
    assert accelerator.idle() is None
    unasked.setenv("SLURM_JOB_GPUS", "0")
    assert "Slurm granted GPUs (SLURM_JOB_GPUS=0), but nvidia-smi finds none" in accelerator.idle()


def test_tpu_chips_are_missed(unasked, tmp_path):
    for number, (vendor, model) in enumerate([("0x1ae0", "0x0063"), ("0x1ae0", "0x0042")]):
        device = tmp_path / f"0000:00:0{number}.0"
        device.mkdir()
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "device").write_text(f"{model}\n")
    unasked.setattr(accelerator, "_PCI", tmp_path)
    assert accelerator.num_tpus() == 1
    unasked.setattr(accelerator, "installed", {}.get)
    assert 'without libtpu. Install it: pip install -e ".[tpu]"' in accelerator.idle()


def test_a_cpu_is_not_refused_if_it_is_asked_for_or_if_jax_uses_the_card(machine):
    machine(H100)
    accelerator.require_use("gpu", chosen=None)
    accelerator.require_use("cpu", chosen="cpu")
    assert accelerator.idle({"JAX_PLATFORMS": "cpu"}) is None
    assert accelerator.idle({"CUDA_VISIBLE_DEVICES": ""}) is None
    assert accelerator.idle({"CUDA_VISIBLE_DEVICES": "3"})
    # What Slurm granted is meant to be used.
    assert accelerator.idle({"CUDA_VISIBLE_DEVICES": "", "SLURM_STEP_GPUS": "3"})
    assert sharding.all_devices()  # the tests ask for CPU devices


def test_a_sweep_is_refused_before_its_first_run(machine):
    """Another process asks JAX, which has no plugin here."""
    machine(H100)
    with pytest.raises(InputError, match="nvidia-smi finds NVIDIA H100"):
        workers.check_devices(parallel=2)


def test_main_refuses_to_leave_a_card_idle(tmp_path):
    put_nvidia_smi(tmp_path / "bin", H100)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    ended = run(DIGITS, f"--workdir={tmp_path / 'run'}", PATH=path, JAX_PLATFORMS="")
    assert ended.returncode == 2
    assert "error: JAX would compute on the CPU. If you want that, set JAX_PLATFORMS=cpu. But " in (
        ended.stderr
    )
    assert "nvidia-smi finds NVIDIA H100" in ended.stderr
    assert 'pip install -e ".[gpu]"' in ended.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
