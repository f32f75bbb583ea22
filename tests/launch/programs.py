"""Programs that the tests of the launchers start, and programs that stand in for others."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from rethinking import cli
from tests import test_commands as commands

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = "--config=configs/quickstart.py:true_labels"
# Arguments that a shell would split or expand.
AWKWARD = [
    DIGITS,
    "--workdir=/my runs/it's",
    '--config.data.data_dir="a" $HOME `b` \\ *',
    "--config.batch_size=64",
]


def launch(module, *arguments, **environment):
    """Runs `python -m launch.MODULE` to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def refused(module, arguments, reason, capsys, required=()):
    """Checks that a launcher prints the reason and ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        call(module, arguments, required)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert reason in said


def call(module, arguments, required=()):
    """Does in this process what `python -m launch.MODULE` does, which takes a second less."""
    try:
        main = commands.module(f"launch.{module}").main
        main(cli.parse_launcher_flags([module, *arguments], required))
    finally:
        flags.FLAGS.unparse_flags()


def put_program(folder, name, text):
    """Writes an executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def run_script(text, programs, **environment):
    """Runs a shell script. The programs in the folder `programs` hide the real ones."""
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash"],
        input=text,
        text=True,
        capture_output=True,
        env=os.environ | {"PATH": path, "SLURM_JOB_ID": "7"} | environment,
    )


def words(file):
    """The arguments that a stand-in wrote to a file, each with a NUL behind it."""
    return file.read_text().split("\0")[:-1]
