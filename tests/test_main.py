"""rethinking.main ends with the reason and exit code 2, within seconds, if the input is bad."""

import pathlib
import re
import resource
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = "--config=configs/quickstart.py:true_labels"
CIFAR10 = "--config=configs/table1.py:mlp_1x512"


def run(*arguments):
    command = [sys.executable, "-m", "rethinking.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def refused(arguments, reason):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 2, ended.stderr
    assert "error: " in ended.stderr
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
    # Processor time, because other programs may slow this one down. All of these take 1 to 4 s.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15


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
        ([DIGITS, "--config.batch_size=5000"], "more than the 1437 training images"),
        ([DIGITS, "--config.model.name=alexnet", "--config.data.crop_size=1"], "1x1"),
        ([DIGITS, "--workdr=x"], "workdir"),
        ([DIGITS, "more"], "unknown arguments: more"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason, tmp_path):
    refused([*arguments, f"--workdir={tmp_path / 'run'}"], reason)


def test_a_set_that_is_not_prepared_is_refused_with_the_command_that_prepares_it(tmp_path):
    refused(
        [CIFAR10, f"--config.data.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"],
        "python -m rethinking.data.prepare cifar10",
    )


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
        "distributed",
        "num_processes",
        "process_id",
        "rendezvous_timeout",
        "time_budget",
        "workdir",
    ]
