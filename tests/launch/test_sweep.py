"""Sweeps: what is planned, skipped, shared and continued."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from launch import sweep
from rethinking import experiments, runs
from rethinking.errors import InputError

FAST = ("--config.max_epochs=2", "--config.num_devices=1")
QUICKSTART = "configs/quickstart.py"
ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "launch.sweep", f"--config={QUICKSTART}", *FAST, *arguments]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


def test_plan_has_every_row_and_seed_in_its_place_seed_0_first(tmp_path):
    jobs = sweep.plan("configs/table1.py", tmp_path, rows="mlp_1x512", seeds=2)
    assert [str(job.workdir.relative_to(tmp_path)) for job in jobs] == [
        f"table1/mlp_1x512{option}/seed_{seed}"
        for seed in (0, 1)
        for option in ("+wd", "", "+random_labels")
    ]
    assert [(job.config.seed, job.config.randomize.seed) for job in jobs] == [(0, 0)] * 3 + [
        (1, 1)
    ] * 3
    assert {job.state for job in jobs} == {"to do"}


def test_equal_runs_are_made_once(tmp_path):
    jobs = {
        job.config.row: job for job in sweep.plan("configs/figure1.py", tmp_path, rows="^alexnet")
    }
    assert jobs["figure1:alexnet+corrupt=1.0"].state == str(
        tmp_path / "figure1/alexnet+random_labels/seed_0"
    )
    assert jobs["figure1:alexnet+corrupt=0.9"].state == "to do"
    table1 = sweep.plan("configs/table1.py", tmp_path, rows="^alexnet$")[0]
    with runs.open_run(table1.workdir, table1.config, experiments.scientific) as directory:
        directory.finish({"status": "complete"})
    again = {
        job.config.row: job.state
        for job in sweep.plan("configs/figure1.py", tmp_path, rows="^alexnet")
    }
    assert again["figure1:alexnet+true_labels"] == str(table1.workdir)
    assert sweep.plan("configs/table1.py", tmp_path, rows="^alexnet$")[0].state == "finished"


def test_a_run_with_other_settings_is_not_taken_for_this_one(tmp_path):
    (job,) = sweep.plan("configs/table1.py", tmp_path, rows="^alexnet$")
    with runs.open_run(job.workdir, job.config, experiments.scientific) as directory:
        directory.finish({"status": "complete"})
    with pytest.raises(InputError, match=r"weight_decay: 0.0 there, 0.004 now.*another --workdir"):
        sweep.plan(
            "configs/table1.py",
            tmp_path,
            rows="^alexnet$",
            overrides=("--config.weight_decay=0.004",),
        )


def test_a_worker_that_is_killed_or_ctrl_c_ends_a_parallel_sweep(tmp_path):
    for number, end in enumerate((signal.SIGKILL, signal.SIGINT)):
        root = tmp_path / str(number)
        arguments = (
            "--parallel=2",
            "--config.max_epochs=2000",
            "--config.fit_accuracy=1",
            f"--workdir={root}",
        )
        process = subprocess.Popen(
            command(*arguments),
            cwd=ROOT,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while len(begun := [file for file in root.rglob("metrics.jsonl") if file.read_text()]) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        if end == signal.SIGKILL:
            workers = [
                child
                for child in psutil.Process(process.pid).children()
                if "spawn_main" in child.cmdline()[-2]
            ]
            workers[-1].kill()
        else:
            os.killpg(process.pid, end)  # as a terminal does
        said, _ = process.communicate(timeout=60)
        assert process.returncode != 0 and ("failed" in said) == (end == signal.SIGKILL)
        assert len(list(root.rglob("config.json"))) == len(begun)


def test_bad_plans_are_refused(tmp_path):
    (tmp_path / "result.json").write_text("{}")  # of no run: left alone
    with pytest.raises(InputError, match="--seeds=3"):
        sweep.plan(QUICKSTART, tmp_path, overrides=("--config.seed=3",))
    with pytest.raises(InputError, match="matches no row"):
        sweep.plan(QUICKSTART, tmp_path, rows="gausian")
    with pytest.raises(InputError, match="not a regular expression"):
        sweep.plan(QUICKSTART, tmp_path, rows="(")
    with pytest.raises(InputError, match="batch_size"):
        sweep.plan(QUICKSTART, tmp_path, overrides=("--config.batch_sise=3",))
    with pytest.raises(InputError, match="num_train"):
        sweep.plan(QUICKSTART, tmp_path, overrides=("--config.data.num_train=-1",))


def test_one_failure_does_not_end_the_others(tmp_path):
    jobs = sweep.plan(
        QUICKSTART,
        tmp_path,
        rows="true|random_labels",
        overrides=(*FAST, "--config.data.num_train=64"),
    )
    jobs[0].config.data.num_train = 10_000
    ended = [how for _, how in sweep.run_all(jobs, 1, time.time() + 1000, tmp_path / "logs")]
    assert ended[0].startswith("failed: InputError: ")
    assert ended[1] == "complete"


def test_command_runs_skips_and_reports(tmp_path):
    dry = run(f"--workdir={tmp_path}", "--seeds=2", "--rows=labels", "--dry_run")
    assert dry.stdout.endswith("4 of 4 to run\n")
    assert not list(tmp_path.iterdir())
    late = run(f"--workdir={tmp_path}", "--rows=labels", "--time_budget=0")
    assert (
        "continues with 2: quickstart:true_labels seed 0, quickstart:random_labels seed 0"
        in late.stdout
    )
    first = run(f"--workdir={tmp_path}", "--seeds=2", "--rows=labels", "--parallel=2", "--report")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count(": complete (") == 4
    assert "| true_labels " in first.stdout
    assert (tmp_path / "report/index.html").exists()
    assert (
        sorted(path.parent.name for path in tmp_path.rglob("result.json"))
        == ["seed_0"] * 2 + ["seed_1"] * 2
    )
    again = run(f"--workdir={tmp_path}", "--seeds=2", "--rows=labels")
    assert again.stdout.count(": finished") == 4


@pytest.mark.parametrize("parallel", [1, 2])
def test_sigterm_saves_and_the_same_command_continues(tmp_path, parallel):
    arguments = command(
        f"--workdir={tmp_path}",
        "--rows=labels",
        f"--parallel={parallel}",
        "--config.max_epochs=99999",
    )
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while process.poll() is None and len(list(tmp_path.rglob("metrics.jsonl"))) < parallel:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (
        "continues with 2: quickstart:true_labels seed 0, quickstart:random_labels seed 0" in said
    )
    assert len(list(tmp_path.rglob("checkpoints"))) == parallel
    assert not list(tmp_path.rglob("result.json"))


def test_a_bad_command_line_ends_with_code_2(tmp_path):
    for arguments, reason in (
        ([], "--workdir"),
        ([f"--workdir={tmp_path}", "--paralel=2"], "parallel"),
        ([f"--workdir={tmp_path}", "--rows=none"], "matches no row"),
        (["--workdir=gs://bucket/runs"], "runs lie on this machine"),
    ):
        ended = run(*arguments)
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: ")
        assert reason in ended.stderr
