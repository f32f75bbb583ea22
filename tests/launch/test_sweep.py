"""launch.sweep: which runs it plans, skips, shares and continues."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from launch import jobs, workers
from rethinking import experiments, runs
from rethinking.errors import InputError
from tests.launch.programs import ROOT
from tests.started import call

FAST = ("--config.max_epochs=2", "--config.num_devices=1")
QUICKSTART = "configs/quickstart.py"
WAITING = "tests.launch.waiting_sweep"
LEFT = "continues with 2: quickstart:true_labels seed 0, quickstart:random_labels seed 0"


def command(*arguments, module="launch.sweep"):
    return [sys.executable, "-m", module, f"--config={QUICKSTART}", *FAST, *arguments]


def sweep(*arguments):
    """A sweep in this process. It must not have workers."""
    return call("launch.sweep", f"--config={QUICKSTART}", *FAST, *arguments)


def test_the_plan_has_every_row_and_seed_and_begins_with_seed_0(tmp_path):
    planned = jobs.plan("configs/table1.py", tmp_path, rows="mlp_1x512", seeds=2)
    assert [str(job.workdir.relative_to(tmp_path)) for job in planned] == [
        "table1/mlp_1x512+wd/seed_0",
        "table1/mlp_1x512/seed_0",
        "table1/mlp_1x512+random_labels/seed_0",
        "table1/mlp_1x512+wd/seed_1",
        "table1/mlp_1x512/seed_1",
        "table1/mlp_1x512+random_labels/seed_1",
    ]
    assert [job.config.seed for job in planned] == [0, 0, 0, 1, 1, 1]
    assert [job.config.randomize.seed for job in planned] == [0, 0, 0, 1, 1, 1]
    assert {job.state for job in planned} == {"to do"}


def finish(job):
    with runs.open_run(job.workdir, job.config, experiments.scientific) as directory:
        directory.finish({"status": "complete"})


def test_equal_runs_are_made_once(tmp_path):
    def states():
        planned = jobs.plan("configs/figure1.py", tmp_path, rows="^alexnet")
        return {job.config.row: job.state for job in planned}

    other = tmp_path / "figure1/alexnet+random_labels/seed_0"
    assert states()["figure1:alexnet+corrupt=1.0"] == f"same as {other}"
    assert states()["figure1:alexnet+corrupt=0.9"] == "to do"
    (table1,) = jobs.plan("configs/table1.py", tmp_path, rows="^alexnet$")
    finish(table1)
    assert states()["figure1:alexnet+true_labels"] == f"same as {table1.workdir}"
    (table1,) = jobs.plan("configs/table1.py", tmp_path, rows="^alexnet$")
    assert table1.state == "finished"


def test_a_run_with_other_settings_is_not_taken_for_this_one(tmp_path):
    file, row = "configs/table1.py", "^alexnet$"
    (job,) = jobs.plan(file, tmp_path, row)
    finish(job)
    with pytest.raises(InputError, match=r"weight_decay: 0.0 there, 0.004 now.*another --workdir"):
        jobs.plan(file, tmp_path, row, overrides=["--config.weight_decay=0.004"])


def begin_two_long_runs(root):
    """Starts a parallel sweep. Returns it when both of its first runs have measured something."""
    process = subprocess.Popen(
        command("--parallel=2", f"--workdir={root}", module=WAITING),
        cwd=ROOT,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while len([file for file in root.rglob("metrics.jsonl") if file.read_text()]) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    return process


def test_a_killed_worker_ends_a_parallel_sweep(tmp_path):
    process = begin_two_long_runs(tmp_path)
    spawned = []
    for child in psutil.Process(process.pid).children():
        if "spawn_main" in child.cmdline()[-2]:
            spawned.append(child)
    spawned[-1].kill()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "failed" in said
    assert len(list(tmp_path.rglob("config.json"))) == 2


@pytest.fixture
def ctrl_c():
    """Programs that start meanwhile end with Ctrl-C, even where the tests themselves ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_parallel_sweep(tmp_path):
    process = begin_two_long_runs(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes
    said, _ = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGINT
    assert "failed" not in said
    assert len(list(tmp_path.rglob("config.json"))) == 2


def test_bad_plans_are_refused(tmp_path):
    (tmp_path / "result.json").write_text("{}")  # not in a run directory: ignored
    with pytest.raises(InputError, match="--seeds=3"):
        jobs.plan(QUICKSTART, tmp_path, overrides=("--config.seed=3",))
    with pytest.raises(InputError, match="matches no row"):
        jobs.plan(QUICKSTART, tmp_path, rows="gausian")
    with pytest.raises(InputError, match="not a regular expression"):
        jobs.plan(QUICKSTART, tmp_path, rows="(")
    with pytest.raises(InputError, match="batch_size"):
        jobs.plan(QUICKSTART, tmp_path, overrides=("--config.batch_sise=3",))
    with pytest.raises(InputError, match="num_train"):
        jobs.plan(QUICKSTART, tmp_path, overrides=("--config.data.num_train=-1",))


def test_one_failure_does_not_end_the_others(tmp_path, monkeypatch):
    overrides = [*FAST, "--config.data.num_train=64"]
    planned = jobs.plan(QUICKSTART, tmp_path, rows="true|random_labels", overrides=overrides)
    planned[0].config.data.num_train = 10_000
    first = workers.run_job(planned[0], math.inf)
    assert first.startswith("failed: InputError: ")
    monkeypatch.setattr(workers, "run_job", lambda job, _: first if job == planned[0] else "done")
    ended = [how for _, how in workers.run_all(planned, 1, math.inf, tmp_path / "logs")]
    assert ended == [first, "done"]


def test_a_run_that_another_sweep_is_making_is_skipped(tmp_path, monkeypatch):
    first, second = jobs.plan(QUICKSTART, tmp_path, rows="true|random_labels", overrides=FAST)
    monkeypatch.setattr(experiments.training, "run", lambda *_: {"status": "complete"})
    with runs.open_run(first.workdir, first.config, experiments.scientific):
        ended = list(workers.run_all([first, second], 1, math.inf, tmp_path / "logs"))
    assert ended == [(first, workers.IN_USE), (second, "complete")]
    assert not (first.workdir / "errors.txt").exists()


def test_ctrl_c_where_a_run_is_printed_ends_a_parallel_sweep(tmp_path, monkeypatch):
    """There, outside the loop that waits, no worker was told to stop."""
    told = []
    monkeypatch.setattr(workers, "_terminate_workers", lambda: told.append(True))
    monkeypatch.setattr(workers, "run_job", quick)
    planned = jobs.plan(QUICKSTART, tmp_path)
    ended = workers.run_all(planned, 2, math.inf, tmp_path / "logs")
    next(ended)
    ended.close()  # as when KeyboardInterrupt leaves the loop that prints
    assert told == [True]


def quick(job, deadline):
    """In place of `run_job`, in the workers."""
    return "done"


def test_the_command_runs_skips_and_reports(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    dry = sweep(f"--workdir={tmp_path}", "--seeds=2", "--rows=labels", "--dry_run", "--device=h100")
    # 88 steps with 32 images, and 6,828 evaluated images, through 64 x 512 and 512 x 10 weights.
    assert "quickstart:true_labels seed 0: to do, 1 GFLOP, about 10 s\n" in dry.stdout, dry.stderr
    assert dry.stdout.endswith("4 of 4 to run\n")
    assert not list(tmp_path.iterdir())
    late = sweep(f"--workdir={tmp_path}", "--rows=labels", "--time_budget=0")
    assert LEFT in late.stdout
    # Four runs side by side, on two of the eight fake devices each.
    rows = (f"--workdir={tmp_path}", "--seeds=4", "--rows=true_labels", "--config.num_devices=2")
    at_once = command(*rows, "--parallel=4", "--report")
    first = subprocess.run(at_once, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert len(list((tmp_path / "logs").iterdir())) == 4
    for result in tmp_path.rglob("result.json"):
        used = json.loads(result.read_text())
        assert (used["num_devices"], used["devices"]) == (2, ["cpu:0", "cpu:1"])
    assert first.stdout.count(": complete (") == 4
    assert "| true_labels " in first.stdout
    assert (tmp_path / "report/index.html").exists()
    seeds = sorted(path.parent.name for path in tmp_path.rglob("result.json"))
    assert seeds == ["seed_0", "seed_1", "seed_2", "seed_3"]
    again = sweep(*rows)
    assert again.stdout.count(": finished") == 4


@pytest.mark.parametrize(
    "parallel, module",
    [
        (1, "launch.sweep"),
        (2, WAITING),
    ],
)
def test_sigterm_saves_and_the_same_command_continues(tmp_path, parallel, module):
    arguments = command(
        f"--workdir={tmp_path}",
        "--rows=labels",
        f"--parallel={parallel}",
        "--config.max_epochs=99999",
        module=module,
    )
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while process.poll() is None and len(list(tmp_path.rglob("metrics.jsonl"))) < parallel:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert LEFT in said
    assert len(list(tmp_path.rglob("checkpoints"))) == parallel
    assert not list(tmp_path.rglob("result.json"))


def test_a_bad_command_line_ends_with_code_2(tmp_path):
    for arguments, reason in (
        ([], "--workdir"),
        ([f"--workdir={tmp_path}", "--paralel=2"], "parallel"),
        ([f"--workdir={tmp_path}", "--rows=none"], "matches no row"),
        ([f"--workdir={tmp_path}", "--device=h100"], "Add --dry_run"),
        ([f"--workdir={tmp_path}", "--config.data.name=./none"], "no such file or folder"),
        (["--workdir=gs://bucket/runs"], "must be on this machine"),
    ):
        ended = sweep(*arguments)
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: ")
        assert reason in ended.stderr
