"""launch.doctor: what it says of a healthy machine, and the remedy for what is broken."""

import errno
import os
import pathlib
import resource
import shutil

import pytest
from absl import flags

from launch import doctor
from launch.checks import FAIL, NOTE, OK, cards, data, devices, host
from tests.launch.programs import launch
from tests.stand_ins import put_nvidia_smi

TABLE1 = ["configs/table1.py"]
H100 = "NVIDIA H100 80GB HBM3"


def marks(ended):
    """(mark, name) of each line that a doctor printed."""
    return [tuple(line.split()[:2]) for line in ended.stdout.splitlines()]


def test_a_healthy_machine_has_one_good_line_for_each_thing(tmp_path, monkeypatch):
    """The digits come with the package, so that no data set is needed."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    options = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'runs'}"]
    ended = launch("doctor", *options, XLA_FLAGS="")  # one device: eight compile longer
    assert ended.returncode == 0, ended.stdout
    found = [(mark, name) for mark, name in marks(ended) if name != "data"]
    names = ["python", "packages", "memory", "disk", "disk", "disk", "files"]
    names += ["jax", "devices", "training", "kernels"]
    assert found == [("ok", name) for name in names]
    assert "    cpu can multiply (float32 products: float32)" in ended.stdout
    assert "digits of alpha are correct (float64 factor" in ended.stdout
    assert ended.stderr == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("is_file", [False, True])
def test_a_broken_folder_of_data_sets_is_named(is_file, tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    if is_file:
        folder.write_text("")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    lines = list(data.check(TABLE1, None))
    assert all(line.mark != OK for line in lines)
    place, cifar10, *others = [str(line) for line in lines]
    reason = "is a file" if is_file else "does not exist"
    remedy = "Correct $TFDS_DATA_DIR, or prepare the sets there."
    assert place == f"FAIL  data       {folder} {reason}. {remedy}"
    if not is_file:
        assert "cifar10 is not prepared in" in cifar10
        assert "Run: python -m rethinking.data.prepare cifar10 (for configs/table1.py)" in cifar10
        # Other experiments need these, but not the one that was asked for.
        assert [line.split()[0] for line in others] == ["note", "note"]
        assert "imagenet2012 (for configs/table2.py)" in " ".join(others)


def test_the_sets_of_the_chosen_configs_are_needed(tfds_dir):
    lines = list(data.check(["configs/table3.py"], tfds_dir("mnist")))
    assert str(lines[0]) == (
        "ok    data       mnist: 60,000 training and 10,000 test examples (for configs/table3.py)"
    )


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_with_the_remedy(tmp_path, monkeypatch):
    workdir = tmp_path / "runs"
    lines = list(host.disks(str(workdir)))
    assert [line.mark for line in lines] == [OK] * 3
    assert list(tmp_path.iterdir()) == []  # what it wrote is gone
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 10**9))
    for line, remedy in zip(
        host.disks(str(workdir)), ("--workdir", "$XDG_", "$TMPDIR"), strict=True
    ):
        assert line.mark == FAIL
        assert "1.0 GB are free. At least 2 GB are needed: free some space." in line.text
        assert remedy in line.text or "JAX_COMPILATION_CACHE_DIR" in os.environ
    monkeypatch.setattr(host.os, "fsync", full)
    first = next(host.disks(str(workdir)))
    assert str(first) == (
        f"FAIL  disk       {workdir}: the disk is full. Free some space. Give another --workdir."
    )


def test_a_folder_that_cannot_be_written_is_named():
    line = next(host.disks("/proc/runs"))
    assert line.mark == FAIL
    assert "/proc/runs cannot be written" in line.text


def test_a_low_limit_of_open_files_is_named(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
    line = host.open_files()
    assert line.mark == FAIL
    assert "may open 1,024 files, and 2,048 if it asks" in line.text
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 10**6))
    assert host.open_files().mark == OK


def test_an_old_driver_and_busy_cards_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    put_nvidia_smi(tmp_path, (H100, "9.0", 79), (H100, "9.0", 8), driver="550.54.15")
    monkeypatch.setattr(cards.accelerator, "cuda_plugins", lambda: {13: "0.10.2"})
    driver, memory = cards.check()
    assert driver.mark == FAIL
    assert f"550.54.15 on {H100}. CUDA 13 needs driver 580" in driver.text
    assert 'pip install -e ".[cuda12]"' in driver.text
    assert memory.mark == FAIL
    assert "free: 99% of card 0, 10% of card 1." in memory.text
    assert "set CUDA_VISIBLE_DEVICES=0." in memory.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(cards.accelerator, "cuda_plugins", lambda: {12: "0.10.2"})
    assert [line.mark for line in cards.check()] == [OK, OK]
    put_nvidia_smi(tmp_path, broken=True)
    assert [line.mark for line in cards.check()] == [FAIL]


def put_plugin(folder):
    """A plugin of JAX that is installed and cannot start."""
    code = folder / "jax_plugins/xla_cuda13"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("def initialize():\n    raise RuntimeError('cuInit: 999')\n")
    about = folder / "jax_cuda13_plugin-0.10.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jax-cuda13-plugin\n")
    with open(about / "METADATA", "a") as file:
        file.write(f"Version: {host.accelerator.installed('jaxlib')}\n")


def put_jax(folder):
    """A JAX that cannot be imported."""
    (folder / "jax").mkdir()
    (folder / "jax/__init__.py").write_text("raise ImportError('libcudart.so.13: not found')\n")


@pytest.mark.parametrize(
    "put, name, reasons",
    [
        (
            put_plugin,
            "devices",
            ["JAX cannot start the card,", "JAX's last line: RuntimeError: cuI"],
        ),
        (put_jax, "jax", ["ImportError: libcudart.so.13", "Install JAX again: pip install"]),
    ],
)
def test_a_jax_that_is_broken_is_a_line_and_no_traceback(put, name, reasons, tmp_path):
    put(tmp_path)
    put_nvidia_smi(tmp_path, (H100, "9.0", 79))
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{pathlib.Path(doctor.__file__).parents[1]}",
        "JAX_PLATFORMS": "",
    }
    *before, failed = devices._try([], environment)[1]
    assert [line.mark for line in before] == [OK] * len(before)
    assert (failed.mark, failed.name) == (FAIL, name)
    for reason in reasons:
        assert reason in failed.text


def test_a_trial_that_crashes_or_hangs_is_a_line():
    findings = [{"mark": OK, "name": "jax", "text": "is there"}, {"begins": "devices"}]
    for how in ("is killed by SIGSEGV", "does not end within 600 s"):
        _, failed = devices._lines(findings, how, "F0000 cuda_driver.cc] no device\n")
        assert str(failed).startswith(f"FAIL  devices    the process that tries this {how}. JAX's")
        assert "no device" in failed.text


@pytest.mark.parametrize(
    "given, environment, places",
    [
        ([], {}, []),
        ([], {"SLURM_STEP_NUM_TASKS": "1"}, []),
        ([], {"SLURM_STEP_NUM_TASKS": "16"}, ["--distributed", "--rendezvous_timeout=300.0"]),
        (
            ["--distributed", "--process_id=0", "--rendezvous_timeout=9"],
            {},
            ["--distributed", "--rendezvous_timeout=9.0", "--process_id=0"],
        ),
    ],
)
def test_several_processes_look_for_each_other(given, environment, places, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    values = flags.FlagValues()
    doctor.cli.define_place_flags(values)
    values(["doctor", *given])
    assert doctor.place_flags(values) == places


@pytest.mark.parametrize("process, shown", [(0, [OK, NOTE, FAIL]), (3, [FAIL])])
def test_the_first_process_says_everything_and_the_others_what_fails(process, shown, monkeypatch):
    found = [doctor.Line(mark, "disk", "text") for mark in (OK, NOTE, FAIL)]
    monkeypatch.setattr(doctor, "_before_devices", lambda: iter(found))
    monkeypatch.setattr(devices, "check", lambda *_: ([], process))
    lines = list(doctor.checks(["--distributed"]))
    assert [line.mark for line in lines] == shown
    assert lines[-1].text.startswith("process 3 on ") == (process == 3)


@pytest.mark.slow
def test_two_processes_find_each_other_and_train_together(tmp_path):
    ended = launch(
        "local",
        "--num_processes=2",
        "--devices_per_process=2",
        "--module=launch.doctor",
        "--",
        "--config=configs/quickstart.py",
        f"--workdir={tmp_path}",
    )
    assert ended.returncode == 0, ended.stdout
    assert "2 found each other, with 4 devices in all" in ended.stdout
    assert not [line for line in ended.stdout.splitlines() if not line.startswith("[0] ")]
