"""Commands that only read configs and runs start without JAX, which takes seconds to import."""

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
