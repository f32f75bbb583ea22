"""launch.slurm: its batch scripts, on a cluster of stand-ins that keeps a state."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launch import run_list
from rethinking import cli
from rethinking.errors import InputError
from tests.launch.fake_slurm import FIRST, Cluster
from tests.launch.programs import AWKWARD, DIGITS, call, launch, put_program, refused, words

# Python on a node. The run needs two sessions: the first one works until it must save.
NODE = """
if [ "$1" = -c ]; then [ -e "$3/result.json" ]; exit; fi
for word in "$@"; do case "$word" in --workdir=*) workdir=${word#--workdir=};; esac; done
[ -z "$FAIL" ] || exit "$FAIL"
mkdir -p "$workdir"
if [ -e "$workdir/saved" ] || [ "$FINISH" ]; then echo {} > "$workdir/result.json"; exit; fi
trap 'sleep $SAVE_SECONDS; touch "$workdir/saved"; exit 0' TERM
touch "$workdir/works"
while :; do sleep 0.02; done
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path / "cluster")
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    # The script looks once a second whether the run is saved.
    put_program(tmp_path / "cluster/bin", "sleep", '[ "$1" != 1 ] || set 0.02; exec /bin/sleep $1')
    return cluster


@pytest.fixture
def node(tmp_path):
    put_program(tmp_path, "node python", NODE)
    return f"--python={tmp_path / 'node python'}"


def submit(*arguments):
    with pytest.raises(SystemExit) as ended:
        call("slurm", arguments)
    assert ended.value.code == 0


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_script_has_the_options_and_runs_main_with_its_arguments(cluster):
    submit(
        "--nodes=4",
        "--gpus_per_node=8",
        "--cpus_per_task=12",
        "--time=2-00:00:00",
        "--partition=big",
        "--sbatch=account=me",
        "--sbatch=exclusive",
        "--srun=container-image=a b",
        "--before=module() { echo loaded $2; }",
        "--before=module load cuda",
        "--prefix=env IMAGE=1",
        "--",
        *AWKWARD,
    )
    job = cluster.jobs / str(FIRST)
    text = (job / "script").read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert text.partition("cd ")[0].splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=quickstart_true_labels",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --time=2-00:00:00",
        "#SBATCH --partition=big",
        "#SBATCH --signal=B:USR1@60",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --account=me",
        "#SBATCH --exclusive",
    ]
    put_program(cluster.folder / "bin", "env", "exit 5")
    assert cluster.begin(str(FIRST)).wait() == 5
    assert "loaded cuda" in (job / "output").read_text()
    assert words(job / "srun") == [
        "--label",
        "--kill-on-bad-exit=1",
        "--cpus-per-task=12",
        "--container-image=a b",
        "env",
        "IMAGE=1",
        sys.executable,
        "-u",
        "-m",
        "rethinking.main",
        "--distributed",
        *AWKWARD,
    ]


@pytest.mark.parametrize(
    "environment, before, exit_code, state",
    [
        ({"FINISH": "1"}, "", 0, "RUNNING"),
        ({"FAIL": "2"}, "", 2, "RUNNING"),  # the cause may be an error
        ({}, "RUNNING", 0, "PENDING"),  # preempted: put back when it is saved
        ({}, "CANCELLED", 0, "CANCELLED"),  # the user cancelled it
        ({}, "PENDING", 0, "PENDING"),  # Slurm has put it back already
    ],
)
def test_a_job_goes_back_into_the_queue_unless_it_is_finished_or_failed(
    environment, before, exit_code, state, cluster, node, tmp_path
):
    workdir = tmp_path / "a run's"
    submit(node, "--", DIGITS, f"--workdir={workdir}")
    process = cluster.begin(str(FIRST), SAVE_SECONDS="0", **environment)
    if before:
        job = cluster.jobs / str(FIRST)
        wait_for(lambda: (workdir / "works").exists() and (job / "step").exists())
        (job / "state").write_text(before)
        process.send_signal(signal.SIGTERM)  # a preempted script gets it, and its step, too
        os.kill(int((job / "step").read_text()), signal.SIGTERM)
    assert process.wait(timeout=30) == exit_code
    assert cluster.states() == {str(FIRST): state}  # the cluster would write COMPLETED or FAILED


@pytest.mark.parametrize("save_seconds", ["0", "60"])
def test_each_run_of_a_sweep_is_a_task_that_comes_back_until_it_is_finished(
    save_seconds, cluster, node, tmp_path, capsys
):
    root = tmp_path / "runs"
    sweep = ("--config=configs/quickstart.py", f"--workdir={root}", "--rows=labels")
    flags = ("--sweep", "--at_once=1", "--grace_seconds=1", "--gres=gpu:a100", node)
    submit(*flags, "--", *sweep, "--config.max_epochs=3")
    assert "task 1: quickstart:random_labels seed 0\n" in capsys.readouterr().out
    one, two = f"{FIRST}_0", f"{FIRST}_1"
    script = (cluster.jobs / one / "script").read_text()
    assert "#SBATCH --array=0-1%1\n" in script
    assert "#SBATCH --gres=gpu:a100:1\n" in script
    assert "gpus-per-node" not in script
    # The number of the first task is that of the whole array, too.
    process = cluster.begin(one, SAVE_SECONDS=save_seconds)
    workdir = root / "quickstart/true_labels/seed_0"
    wait_for((workdir / "works").exists)
    assert words(cluster.jobs / one / "srun")[-5:] == [
        "--config=configs/quickstart.py:true_labels",
        f"--workdir={workdir}",
        "--config.max_epochs=3",
        "--config.seed=0",
        "--config.randomize.seed=0",
    ]
    process.send_signal(signal.SIGUSR1)  # the time is nearly up
    if save_seconds == "0":
        assert process.wait(timeout=30) == 0
    else:  # Slurm kills a job that is put back, and the save with it
        wait_for(lambda: cluster.states()[one] == "PENDING")
        cluster.kill(one, process)
        assert not (workdir / "saved").exists()
        (workdir / "saved").touch()  # a checkpoint from before
    assert cluster.states() == {one: "PENDING", two: "PENDING"}
    for name in (one, two):
        assert cluster.begin(name, FINISH="1").wait(timeout=30) == 0
    assert len(list(root.rglob("result.json"))) == 2


def test_the_submitted_script_is_the_one_that_a_dry_run_prints(tmp_path, monkeypatch, capsys):
    arguments = ["--gpus_per_node=0", "--sbatch=gres=craynetwork:0", "--", *AWKWARD]
    call("slurm", ["--dry_run", *arguments])
    printed = capsys.readouterr().out
    put_program(tmp_path, "sbatch", f"cat > {tmp_path}/script; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SystemExit) as ended:
        call("slurm", arguments)
    assert ended.value.code == 3  # the exit code of sbatch
    assert (tmp_path / "script").read_text() == printed
    assert "gpus-per-node" not in printed
    assert "#SBATCH --ntasks-per-node=1\n" in printed


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--nodes=2"], "needed: -- --config=FILE:ROW --workdir=DIR"),
        (["--", DIGITS, "--workdir=x", "--config.lerning_rate=1"], "learning_rate"),
        (["--sbatch=comment=a b", "--", DIGITS, "--workdir=x"], "--comment=a b"),
        (["--sbatch=gres=gpu:8", "--", DIGITS, "--workdir=x"], "Use --gpus_per_node"),
        (["--sbatch=signal=USR2", "--", DIGITS, "--workdir=x"], "Use --grace_seconds"),
        (["--gres=gpu", "--gpus_per_node=0", "--", DIGITS, "--workdir=x"], "--gres=gpu has no"),
        (["--gpus_per_node=7", "--", DIGITS, "--workdir=x"], "split evenly over 7 devices"),
        (["--", DIGITS, "--workdir=x", "--config.num_devices=2"], "the run gets 1 devices"),
        (["--at_once=2", "--", DIGITS, "--workdir=x"], "Add --sweep"),
        (["--sweep", "--", DIGITS.partition(":t")[0]], "needed: --workdir"),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason, capsys):
    refused("slurm", arguments, reason, capsys)


def test_a_missing_sbatch_is_named(tmp_path):
    ended = launch("slurm", "--", DIGITS, "--workdir=x", PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "sbatch is not installed here" in ended.stderr


def test_the_runs_of_a_sweep_are_those_of_launch_sweep(tmp_path):
    sweep = ["--config=configs/quickstart.py", "--rows=labels|gauss", "--seeds=2"]
    found = run_list.sweep([*sweep, "--workdir=gs://bucket/runs/", "--config.batch_size=64"])
    places = [run.workdir for run in found]
    assert places == [
        f"gs://bucket/runs/quickstart/{row}/seed_{seed}"
        for seed in (0, 1)
        for row in ("true_labels", "random_labels", "gaussian")
    ]
    for run in found:
        config = cli.parse_config([word for word in run.arguments if "workdir" not in word])
        assert config.to_dict() == run.config.to_dict()
    assert str(found[4]) == "quickstart:random_labels seed 1"


def test_equal_runs_of_several_files_get_one_task():
    files = "--config=configs/table1.py,configs/figure1.py"
    found = run_list.sweep([files, "--rows=^alexnet(.true_labels)?$", "--workdir=gs://b"])
    assert [run.arguments[0] for run in found] == ["--config=configs/table1.py:alexnet"]


def test_finished_runs_of_a_sweep_are_left_out(tmp_path):
    sweep = ["--config=configs/quickstart.py", "--rows=labels", f"--workdir={tmp_path}"]
    first, second = run_list.sweep(sweep)
    for run in (first, second):
        folder = tmp_path / run.workdir
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(run.config.to_json())
        (folder / "result.json").write_text('{"status": "complete"}')
        if run is first:
            (left,) = run_list.sweep(sweep)
            assert left.arguments == second.arguments
    with pytest.raises(InputError, match="all 2 runs of this sweep are finished"):
        run_list.sweep(sweep)
