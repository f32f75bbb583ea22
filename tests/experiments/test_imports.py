"""Commands that only read configs and runs start without JAX, which takes seconds to import."""

import importlib.util
import subprocess
import sys

import pytest

from tests.experiments.trained import ROOT

HEAVY = ("jax", "flax", "optax", "orbax")
# Every module that reads or checks configs, and the report.
MODULES = (
    "rethinking.experiments",
    "rethinking.experiments.training",
    "rethinking.rows",
    "rethinking.report",
)


def imported_by(module):
    """The names of HEAVY packages in `sys.modules` after a new process has imported `module`."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.parametrize("module", MODULES)
def test_configs_and_reports_import_no_jax(module):
    assert imported_by(module) == []


def test_the_run_itself_imports_jax():
    """The test above can fail: it would see these packages."""
    assert imported_by("rethinking.experiments.loop") == list(HEAVY)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_tensorboard_s_file_is_written_without_pytorch(tmp_path):
    """To import PyTorch takes seconds, and a minute on a loaded machine."""
    code = (
        "import sys; from etils import epath; from rethinking.experiments import progress; "
        "progress.Events(epath.Path(sys.argv[1])).write({'step': 1, 'train_loss': 0.5}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)
    (file,) = tmp_path.iterdir()
    assert b"train_loss" in file.read_bytes()
