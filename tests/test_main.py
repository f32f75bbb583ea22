"""rethinking.main ends with the reason and exit code 2, within seconds, if the input is bad."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from rethinking import cli, experiments, runs
from tests.started import call, free_address

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = "--config=configs/quickstart.py:true_labels"
CIFAR10 = "--config=configs/table1.py:mlp_1x512"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "rethinking.main", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(arguments, reason):
    before = time.process_time()
    ended = call("rethinking.main", *arguments)
    # Processor time, because other programs may slow this one down.
    assert time.process_time() - before < 10
    assert ended.returncode == 2, ended.stderr
    assert "error: " in ended.stderr
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--config=configs/table1.py:incepton"], "Did you mean 'inception'"),
        (
            [CIFAR10, "--config.lerning_rate=1"],
            "config.lerning_rate: unknown field. Did you mean 'learning_rate'?",
        ),
        ([CIFAR10, "--config.batch_size=big"], "batch_size"),
        ([DIGITS, "--config.data.name=cifar11"], "'cifar10'"),
        ([DIGITS, "--config.randomize.labels=1.5"], "must be at least 0 and at most 1"),
        ([DIGITS, "--config.batch_size=5000"], "more than the 1437 training examples"),
        ([DIGITS, "--config.model.name=alexnet", "--config.data.crop_size=1"], "1x1"),
        ([DIGITS, "--workdr=x"], "workdir"),
        ([DIGITS, "more"], "unknown arguments: more"),
        ([DIGITS, "--config.max_epochs", "5"], "Write --config.max_epochs=5"),
        ([DIGITS, "--time_budget=nan"], "a number of seconds, at least 0"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason, tmp_path):
    refused([*arguments, f"--workdir={tmp_path / 'run'}"], reason)


def test_a_set_that_is_not_prepared_is_refused_with_the_command_that_prepares_it(tmp_path):
    ended = run(CIFAR10, f"--config.data.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    assert "error: " in ended.stderr
    assert "python -m rethinking.data.prepare cifar10" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_foreign_and_unwritable_workdirs_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    refused([DIGITS, f"--workdir={tmp_path}"], "neither empty nor a run directory")
    refused([DIGITS, f"--workdir={tmp_path / 'thesis.tex' / 'run'}"], "cannot be written")


def test_a_truncated_data_file_is_named(tmp_path, tfds_dir):
    shutil.copytree(f"{tfds_dir('mnist')}/mnist", tmp_path / "mnist")
    shard = next(tmp_path.rglob("*train*array_record*"))
    with open(shard, "r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    mnist = [DIGITS, "--config.data.name=mnist", f"--config.data.data_dir={tmp_path}"]
    refused([*mnist, f"--workdir={tmp_path / 'run'}"], shard.name)


def test_help_lists_the_flags_and_ends_with_absl_s_exit_code():
    ended = run("--help")
    assert ended.returncode == 1
    assert re.findall(r"^  --(?:\[no\])?(\w+):", ended.stdout, re.MULTILINE) == [
        "config",
        "coordinator_address",
        "debug_nans",
        "distributed",
        "num_processes",
        "process_id",
        "profile",
        "rendezvous_timeout",
        "time_budget",
        "workdir",
    ]


def test_a_mistake_in_a_network_is_named_and_its_traceback_kept(tmp_path, monkeypatch):
    network = (
        "from flax import linen as nn\n\n\nclass Net(nn.Module):\n    @nn.compact\n"
        "    def __call__(self, x, train):\n        return x.no_such_method()\n"
    )
    (tmp_path / "broken_network.py").write_text(network)
    command = [DIGITS, "--config.model.name=broken_network:Net", f"--workdir={tmp_path / 'run'}"]
    monkeypatch.syspath_prepend(tmp_path)
    ended = call("rethinking.main", *command)
    assert ended.returncode == 2
    assert "no_such_method" in ended.stderr
    assert "Traceback" not in ended.stderr
    log = (tmp_path / "run" / "errors.txt").read_text()
    assert 'broken_network.py", line 7' in log
    # The folder can still be used.
    with runs.open_run(tmp_path / "run", cli.parse_config([DIGITS]), experiments.scientific):
        assert (tmp_path / "run" / "config.json").exists()


ALONE = ("--distributed", "--num_processes=1", "--process_id=0")


@pytest.mark.parametrize("joins", [False, True])
def test_devices_that_are_not_there_are_refused(joins, tmp_path):
    place = (*ALONE, f"--coordinator_address={free_address()}") if joins else ()
    ended = run(DIGITS, f"--workdir={tmp_path / 'run'}", *place, JAX_PLATFORMS="cuda")
    assert ended.returncode == 2
    assert "JAX_PLATFORMS=cuda: JAX cannot use these devices" in ended.stderr
    assert "Traceback" not in ended.stderr
