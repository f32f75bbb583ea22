"""Launchers: processes that start and end together on one machine, and the commands that start them on clusters."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rethinking import cli, experiments
from rethinking.rendezvous import PEER_LOST

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = "--config=configs/quickstart.py:true_labels"
POD = ["--name=mine", "--zone=us-west4-a"]
# Arguments that a shell would take apart, or make something else of.
AWKWARD = [
    DIGITS,
    "--workdir=/my runs/it's",
    '--config.data.data_dir="a" $HOME `b` \\ *',
    "--config.batch_size=64",
]
# A program that stands in for rethinking.main: does what is said for its number, "0:WORD:... 1:WORD:...".
STANDIN = """
import os, signal, sys, time
number = next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--process_id="))
words = dict(word.split(":", 1) for word in sys.argv[1].split())[number].split(":")
ended = []
for word in words:
    if word == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "saves":
        signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    elif word == "show":
        print("arguments", sys.argv[2:], flush=True)
        print("devices", os.environ.get("XLA_FLAGS"), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    elif word == "wait":
        print("waiting", flush=True)
        while not ended:
            time.sleep(0.01)
        print("saved", flush=True)
    elif word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word.startswith("pause"):
        time.sleep(float(word[5:]))
    else:
        print("the reason:", word, file=sys.stderr, flush=True)
        sys.exit(int(word))
"""


@pytest.fixture
def launched(tmp_path):
    """Starts launch.local with two stand-ins; kills in the end what is left."""
    (tmp_path / "standin.py").write_text(STANDIN)
    started = []

    def start(words, *flags, **environment):
        command = [
            sys.executable,
            "-m",
            "launch.local",
            "--num_processes=2",
            "--module=standin",
            *flags,
            "--",
            words,
        ]
        path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment | {"PYTHONPATH": path},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
        process.communicate()


def no_children_of(process):
    return not any(
        other.ppid() == process.pid for other in psutil.process_iter() if other.pid != os.getpid()
    )


def test_each_process_gets_the_arguments_its_place_and_its_devices(launched):
    process = launched("0:show 1:show", "--devices_per_process=3", XLA_FLAGS="--xla_dump_to=x")
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    lines = sorted(said.splitlines())
    assert [line[:4] for line in lines] == ["[0] ", "[0] ", "[1] ", "[1] "]
    for number in range(2):
        arguments = eval(lines[2 * number].partition("arguments ")[2])
        assert arguments[0] == "--distributed"
        assert arguments[1].startswith("--coordinator_address=localhost:")
        assert arguments[2:] == ["--num_processes=2", f"--process_id={number}"]
        assert lines[2 * number + 1].endswith(
            "devices --xla_dump_to=x --xla_force_host_platform_device_count=3 None"
        )


@pytest.mark.parametrize(
    "words, exit_code, blamed, reason",
    [
        ("0:wait 1:pause0.5:3", 3, 1, "the reason: 3"),
        (
            f"0:pause3:{PEER_LOST} 1:stubborn:pause5:2",
            2,
            1,
            "the reason: 2",
        ),  # 0 is quicker, but only missed 1
        (
            f"0:{PEER_LOST} 1:wait",
            PEER_LOST,
            0,
            f"the reason: {PEER_LOST}",
        ),  # 1 hangs, and 0 says so
        ("0:pause0.5:die 1:wait", 137, 0, "by SIGKILL"),
    ],
)
def test_when_one_fails_the_others_end_and_its_own_words_come_last(
    words, exit_code, blamed, reason, launched
):
    process = launched(words)
    _, error = process.communicate(timeout=60)
    assert process.returncode == exit_code, error
    last = error.partition(f"\nerror: process {blamed} of 2 failed first")[2]
    assert reason in last
    assert "[" not in last
    assert no_children_of(process)


def test_who_ignores_sigterm_is_killed_after_a_while(launched):
    start = time.monotonic()
    process = launched("0:stubborn:wait 1:pause1:4", "--grace_seconds=2")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 4, error
    assert time.monotonic() - start > 2
    assert no_children_of(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waited_for(number, launched):
    process = launched("0:saves:wait 1:saves:wait")
    for _ in range(2):
        assert "waiting" in process.stdout.readline()
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert sorted(said.splitlines()) == ["[0] saved", "[1] saved"]


def test_the_second_signal_kills(launched):
    process = launched("0:stubborn:wait 1:saves:wait:pause60")
    for _ in range(2):
        assert "waiting" in process.stdout.readline()
    process.terminate()
    assert process.stdout.readline() == "[1] saved\n"
    process.terminate()  # `timeout` sends two at once, which are one
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert no_children_of(process)


def test_gpus_are_dealt_out_evenly(launched):
    said, error = launched(
        "0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6,7", JAX_PLATFORMS=""
    ).communicate()
    assert {line[-3:] for line in said.splitlines() if "devices" in line} == {"4,5", "6,7"}, error
    assert "[0] devices" in said.partition("4,5\n")[0].splitlines()[-1]
    said, _ = launched(
        "0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6", JAX_PLATFORMS="cpu"
    ).communicate()
    assert said.count(" 4,5,6\n") == 2  # left as they are: nobody uses them
    process = launched("0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6", JAX_PLATFORMS="")
    assert "--num_processes=2: the 3 visible GPUs (4,5,6)" in process.communicate()[1]
    assert process.returncode == 2


def launch(module, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_two_processes_stopped_before_their_first_step_and_continued_make_the_run_of_one(tmp_path):
    """Of one device each: the state, before a step has made another, is what `sharding.replicate` made of it."""
    one, two = tmp_path / "one", tmp_path / "two"
    experiments.run(
        cli.parse_config([DIGITS, "--config.max_epochs=2", "--config.num_devices=2"]), one
    )
    command = (
        "local",
        "--num_processes=2",
        "--devices_per_process=1",
        "--",
        DIGITS,
        "--config.max_epochs=2",
        f"--workdir={two}",
    )
    ended = launch(*command, "--time_budget=0")
    assert ended.returncode == 0 and "Stopped after step 0" in ended.stderr, ended.stderr
    ended = launch(*command)
    assert ended.returncode == 0 and ended.stdout.count("complete, see") == 1, ended.stderr
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    for of_one, of_two in zip(*lines, strict=True):
        assert of_two["step"] == of_one["step"]
        assert of_two["train_loss"] == pytest.approx(of_one["train_loss"], rel=1e-4)
    assert json.loads((two / "result.json").read_text())["num_devices"] == 2


def test_what_main_refuses_is_said_and_ends_with_2(tmp_path):
    ended = launch(
        "local",
        "--num_processes=2",
        "--devices_per_process=1",
        "--",
        DIGITS,
        f"--workdir={tmp_path / 'run'}",
        "--config.batch_size=0",
    )
    assert ended.returncode == 2
    assert "\n    error: config.batch_size=0: must be at least 1" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "module, arguments, reason",
    [
        ("local", ["--", DIGITS], "needed: --num_processes"),
        ("local", ["--num_processes=2", "x"], "unknown arguments: x"),
        (
            "local",
            ["--num_processes=2", "--config.seed=1"],
            "--config.seed=1: the arguments of rethinking.main come after",
        ),
        ("slurm", ["--nodes=2"], "needed: -- --config=FILE:ROW --workdir=DIR"),
        ("slurm", ["--", DIGITS, "--workdir=x", "--config.lerning_rate=1"], "learning_rate"),
        ("slurm", ["--sbatch=comment=a b", "--", DIGITS, "--workdir=x"], "--comment=a b"),
        ("tpu_pod", ["--action=fly", *POD], "fly"),
        ("tpu_pod", ["--action=delete", *POD, "--", DIGITS], "takes no arguments"),
        ("tpu_pod", ["--action=create", *POD, "--accelerator_type=v9-8"], "--runtime_version"),
        ("tpu_pod", ["--action=run", *POD, "--", DIGITS, "--workdir=runs/x"], "gs://BUCKET/FOLDER"),
        (
            "tpu_pod",
            ["--action=run", *POD, "--", DIGITS, "--workdir=gs://b/x", "--config.seed=-1"],
            "config.seed=-1",
        ),
    ],
)
def test_launchers_refuse_bad_input_with_its_reason(module, arguments, reason):
    ended = launch(module, *arguments)
    assert ended.returncode == 2
    assert "error: " in ended.stderr
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("slurm", ["--", DIGITS, "--workdir=x"]),
        ("tpu_pod", ["--action=status", *POD]),
    ],
)
def test_a_missing_tool_is_named(module, arguments, tmp_path):
    ended = launch(module, *arguments, PATH=str(tmp_path))
    assert ended.returncode == 2
    assert {"slurm": "sbatch", "tpu_pod": "gcloud"}[module] + " is not here" in ended.stderr


def put_program(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
    """A folder of programs that stand in for Slurm's, and write down what they are asked."""
    bin = tmp_path / "bin"
    put_program(bin, "srun", f"printf '%s\\0' \"$@\" > {tmp_path}/srun; exit ${{SRUN_EXIT:-0}}")
    put_program(bin, "squeue", "echo ${STATE:-RUNNING}")
    put_program(bin, "scontrol", f'echo "$@" > {tmp_path}/scontrol')
    put_program(bin, "sbatch", f"cat > {tmp_path}/sbatch; exit 3")
    return bin


def run_script(text, cluster, **environment):
    path = f"{cluster}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash"],
        input=text,
        text=True,
        capture_output=True,
        env=os.environ | {"PATH": path, "SLURM_JOB_ID": "7"} | environment,
    )


def test_the_slurm_script_says_what_is_needed_and_runs_main_with_its_arguments(cluster, tmp_path):
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
        *(
            f"#SBATCH --{option}"
            for option in (
                "job-name=quickstart_true_labels",
                "nodes=4",
                "ntasks-per-node=8",
                "gpus-per-node=8",
                "cpus-per-task=12",
                "time=2-00:00:00",
                "partition=big",
                "signal=TERM@60",
                "requeue",
                "open-mode=append",
                "account=me",
                "exclusive",
            )
        ),
    ]
    run_script(ended.stdout, cluster)
    asked = (tmp_path / "srun").read_text().split("\0")[:-1]
    assert asked == [
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
        (None, {}, 0, True),  # saved, since the time was up
        ("{}", {}, 0, False),  # finished
        (None, {"STATE": "CANCELLED"}, 0, False),  # by the user
        (None, {"STATE": "PENDING"}, 0, False),  # preempted, and back in the queue already
        (None, {"SRUN_EXIT": "2"}, 2, False),  # failed
    ],
)
def test_a_slurm_job_goes_back_into_the_queue_until_it_is_finished(
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


def test_slurm_submits_what_a_dry_run_prints(cluster, tmp_path):
    arguments = ["--gpus_per_node=0", "--", *AWKWARD]
    printed = launch("slurm", "--dry_run", *arguments).stdout
    ended = launch("slurm", *arguments, PATH=f"{cluster}:{os.environ['PATH']}")
    assert ended.returncode == 3  # sbatch's own
    assert (tmp_path / "sbatch").read_text() == printed
    assert "gpus-per-node" not in printed
    assert "#SBATCH --ntasks-per-node=1\n" in printed


@pytest.fixture
def pod(tmp_path):
    """What the shell makes of the commands that launch.tpu_pod prints, as lists of words."""

    def print_and_paste(action, *arguments):
        ended = launch("tpu_pod", f"--action={action}", *POD, "--dry_run", *arguments)
        assert ended.returncode == 0, ended.stderr
        asked = tmp_path / "asked_of_gcloud"
        for name in ("git", "gcloud"):
            put_program(tmp_path / "pasted", name, f"printf '%s\\0' {name} \"$@\" END >> {asked}")
        asked.unlink(missing_ok=True)
        run_script(ended.stdout, tmp_path / "pasted")
        commands = asked.read_text().removesuffix("END\0").split("END\0")
        return [command.split("\0")[:-1] for command in commands]

    return print_and_paste


def test_tpu_pod_gives_gcloud_its_commands(pod):
    gcloud = ["gcloud", "compute", "tpus", "tpu-vm"]
    assert pod("create", "--accelerator_type=v6e-256", "--spot", "--project=p") == [
        [
            *gcloud,
            "create",
            "mine",
            "--accelerator-type=v6e-256",
            "--version=v2-alpha-tpuv6e",
            "--spot",
            "--zone=us-west4-a",
            "--project=p",
        ]
    ]
    bundle, copy, install = pod("setup")
    assert bundle == ["git", "bundle", "create", "rethinking.bundle", "HEAD"]
    assert copy == [
        *gcloud,
        "scp",
        "rethinking.bundle",
        "mine:",
        "--worker=all",
        "--zone=us-west4-a",
    ]
    assert install[:6] == [*gcloud, "ssh", "mine"]
    assert pod("status") == [
        [*gcloud, "describe", "mine", "--format=value(state)", "--zone=us-west4-a"]
    ]
    assert pod("delete") == [[*gcloud, "delete", "mine", "--quiet", "--zone=us-west4-a"]]


def test_every_host_of_a_pod_gets_the_arguments_of_main_unharmed(pod, tmp_path):
    arguments = [
        "--workdir=gs://bucket/it's $HOME" if "workdir" in argument else argument
        for argument in AWKWARD
    ]
    ((*ssh, worker, command, zone),) = pod("run", "--", *arguments)
    assert [*ssh, worker, zone] == [
        "gcloud",
        "compute",
        "tpus",
        "tpu-vm",
        "ssh",
        "mine",
        "--worker=all",
        "--zone=us-west4-a",
    ]
    put_program(
        tmp_path / "rethinking/.venv/bin", "python", f"printf '%s\\0' \"$@\" > {tmp_path}/asked"
    )
    subprocess.run(["bash", "-c", command.removeprefix("--command=")], cwd=tmp_path, check=True)
    asked = (tmp_path / "asked").read_text().split("\0")[:-1]
    assert asked == ["-u", "-m", "rethinking.main", "--distributed", *arguments]


def test_every_host_of_a_pod_gets_the_newest_commit(pod, tmp_path):
    git = ["git", "-C", tmp_path / "mine", "-c", "user.name=me", "-c", "user.email=me@example.com"]
    subprocess.run(["git", "init", "--quiet", tmp_path / "mine"], check=True)
    put_program(tmp_path / "home/.local/bin", "uv", f'echo "$@" >> {tmp_path}/uv')
    for text in ("first", "second"):  # setup once more brings what is new
        (tmp_path / "mine" / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
        subprocess.run(
            [*git, "bundle", "create", "--quiet", tmp_path / "home/rethinking.bundle", "HEAD"],
            check=True,
        )
        command = pod("setup")[2][-2].removeprefix("--command=")
        subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path / "home",
            check=True,
            env=os.environ | {"HOME": str(tmp_path / "home")},
        )
        assert (tmp_path / "home/rethinking/file").read_text() == text
    assert (tmp_path / "uv").read_text().splitlines()[:2] == [
        "venv --quiet --allow-existing --python 3.12 .venv",
        "pip install --quiet --python .venv/bin/python --editable .[tpu,gcs,imagenet]",
    ]


def test_stopping_a_pod_finds_the_run_and_not_itself(pod):
    command = pod("stop")[0][-2].removeprefix("--command=")
    program, full, pattern, *_ = shlex.split(command)
    assert (program, full) == ("pkill", "--full")
    assert re.search(pattern, ".venv/bin/python -u -m rethinking.main --distributed")
    assert not re.search(pattern, f"bash -c {command}")
