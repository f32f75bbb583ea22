"""launch.slurm: the batch script, run with stand-ins for Slurm's programs."""

import os
import subprocess
import sys

import pytest

from tests.launch.programs import (
    AWKWARD,
    DIGITS,
    launch,
    put_program,
    refused,
    run_script,
    words,
)


@pytest.fixture
def cluster(tmp_path):
    """A folder of programs in place of Slurm's. They write down their arguments."""
    folder = tmp_path / "bin"
    put_program(folder, "srun", f"printf '%s\\0' \"$@\" > {tmp_path}/srun; exit ${{SRUN_EXIT:-0}}")
    put_program(folder, "squeue", "echo ${STATE:-RUNNING}")
    put_program(folder, "scontrol", f'echo "$@" > {tmp_path}/scontrol')
    put_program(folder, "sbatch", f"cat > {tmp_path}/sbatch; exit 3")
    return folder


def test_the_script_has_the_options_and_runs_main_with_its_arguments(cluster, tmp_path):
    ended = launch(
        "slurm",
        "--dry_run",
        "--nodes=4",
        "--gpus_per_node=8",
        "--cpus_per_task=12",
        "--time=2-00:00:00",
        "--partition=big",
        "--sbatch=account=me",
        "--sbatch=exclusive",
        "--",
        *AWKWARD,
    )
    assert ended.returncode == 0, ended.stderr
    assert subprocess.run(["bash", "-n"], input=ended.stdout, text=True).returncode == 0
    head, _, _ = ended.stdout.partition("cd ")
    assert head.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=quickstart_true_labels",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --time=2-00:00:00",
        "#SBATCH --partition=big",
        "#SBATCH --signal=TERM@60",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --account=me",
        "#SBATCH --exclusive",
    ]
    run_script(ended.stdout, cluster)
    assert words(tmp_path / "srun") == [
        "--label",
        "--kill-on-bad-exit=1",
        "--cpus-per-task=12",
        sys.executable,
        "-u",
        "-m",
        "rethinking.main",
        "--distributed",
        *AWKWARD,
    ]


@pytest.mark.parametrize(
    "result, environment, exit_code, requeued",
    [
        (None, {}, 0, True),  # saved, because the time was up
        ("{}", {}, 0, False),  # finished
        (None, {"STATE": "CANCELLED"}, 0, False),  # the user cancelled it
        (None, {"STATE": "PENDING"}, 0, False),  # preempted: Slurm has put it back
        (None, {"SRUN_EXIT": "2"}, 2, False),  # failed
    ],
)
def test_a_job_goes_back_into_the_queue_until_it_is_finished(
    result, environment, exit_code, requeued, cluster, tmp_path
):
    workdir = tmp_path / "a run's"
    workdir.mkdir()
    if result:
        (workdir / "result.json").write_text(result)
    text = launch("slurm", "--dry_run", "--", DIGITS, f"--workdir={workdir}").stdout
    ended = run_script(text, cluster, **environment)
    assert ended.returncode == exit_code, ended.stderr
    assert (tmp_path / "scontrol").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 7\n"


def test_the_submitted_script_is_the_one_that_a_dry_run_prints(cluster, tmp_path):
    arguments = ["--gpus_per_node=0", "--", *AWKWARD]
    printed = launch("slurm", "--dry_run", *arguments).stdout
    ended = launch("slurm", *arguments, PATH=f"{cluster}:{os.environ['PATH']}")
    assert ended.returncode == 3  # the exit code of sbatch
    assert (tmp_path / "sbatch").read_text() == printed
    assert "gpus-per-node" not in printed
    assert "#SBATCH --ntasks-per-node=1\n" in printed


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--nodes=2"], "needed: -- --config=FILE:ROW --workdir=DIR"),
        (["--", DIGITS, "--workdir=x", "--config.lerning_rate=1"], "learning_rate"),
        (["--sbatch=comment=a b", "--", DIGITS, "--workdir=x"], "--comment=a b"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason):
    refused("slurm", arguments, reason)


def test_a_missing_sbatch_is_named(tmp_path):
    ended = launch("slurm", "--", DIGITS, "--workdir=x", PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "sbatch is not installed here" in ended.stderr
