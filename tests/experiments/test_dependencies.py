"""What a plain installation can do: packages of the extras are neither needed nor imported."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
EXTRAS = ("cv2", "matplotlib", "simplejpeg", "sklearn", "tensorflow")


def test_training_imports_no_package_of_the_extras(tmp_path):
    """Each of them is there, and ends the program when something imports it."""
    for name in EXTRAS:
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"raise SystemExit('{name} was imported')")
    paths = os.pathsep.join([str(tmp_path / "packages"), str(ROOT)])
    command = [
        sys.executable,
        "-m",
        "rethinking.main",
        "--config=configs/quickstart.py:true_labels",
        "--config.max_epochs=1",
        f"--workdir={tmp_path / 'run'}",
    ]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "result.json").exists()
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
