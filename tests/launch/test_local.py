"""launch.local: processes on one machine that start together and end together."""

import ast
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rethinking import cli, experiments
from rethinking.rendezvous import PEER_LOST
from tests.launch.programs import DIGITS, ROOT, launch, refused

# A program in place of rethinking.main. Its first argument is "0:WORD:WORD... 1:WORD...": what each
# process does, one word after the other.
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
        devices = os.environ.get("XLA_FLAGS"), os.environ.get("CUDA_VISIBLE_DEVICES")
        print("devices", *devices, flush=True)
    elif word == "word":
        print("word", os.environ["RETHINKING_RUN_WORD"], flush=True)
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
    """Starts launch.local with two stand-ins. Kills what is left at the end."""
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


def still_running(tmp_path):
    """The processes that the fixture `launched` started, and their children, that still run."""
    found = []
    for process in psutil.process_iter(["environ"]):
        environment = process.info["environ"] or {}
        if str(tmp_path) in environment.get("PYTHONPATH", ""):
            found.append(process)
    return found


def test_each_process_gets_the_arguments_its_place_and_its_devices(launched):
    words = "0:show:word 1:show:word"
    process = launched(words, "--devices_per_process=3", XLA_FLAGS="--xla_dump_to=x")
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    lines = sorted(said.splitlines())
    assert [line[:4] for line in lines] == 3 * ["[0] "] + 3 * ["[1] "]
    assert len(lines[2]) > 30 and lines[2][4:] == lines[5][4:]  # a word that only they know
    for number in range(2):
        arguments = ast.literal_eval(lines[3 * number].partition("arguments ")[2])
        assert arguments[0] == "--distributed"
        assert arguments[1].startswith("--coordinator_address=localhost:")
        assert arguments[2:] == ["--num_processes=2", f"--process_id={number}"]
        assert lines[3 * number + 1].endswith(
            "devices --xla_dump_to=x --xla_force_host_platform_device_count=3 None"
        )


@pytest.mark.parametrize(
    "words, exit_code, blamed, reason",
    [
        ("0:wait 1:pause0.5:3", 3, 1, "the reason: 3"),
        # Process 0 ends first, but only because it lost process 1.
        (f"0:pause3:{PEER_LOST} 1:stubborn:pause5:2", 2, 1, "the reason: 2"),
        # Process 1 hangs, so that process 0 loses it.
        (f"0:{PEER_LOST} 1:wait", PEER_LOST, 0, f"the reason: {PEER_LOST}"),
        ("0:pause0.5:die 1:wait", 137, 0, "by SIGKILL"),
    ],
)
def test_when_one_fails_the_others_end_and_its_last_lines_are_shown_again(
    words, exit_code, blamed, reason, launched, tmp_path
):
    process = launched(words)
    _, error = process.communicate(timeout=60)
    assert process.returncode == exit_code, error
    last = error.partition(f"\nerror: process {blamed} of 2 failed first")[2]
    assert reason in last
    assert "[" not in last
    assert not still_running(tmp_path)


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_time(launched, tmp_path):
    start = time.monotonic()
    process = launched("0:stubborn:wait 1:pause1:4", "--grace_seconds=2")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 4, error
    assert time.monotonic() - start > 2
    assert not still_running(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waited_for(number, launched):
    process = launched("0:saves:wait 1:saves:wait")
    for _ in range(2):
        assert "waiting" in process.stdout.readline()
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert sorted(said.splitlines()) == ["[0] saved", "[1] saved"]


def test_the_second_signal_kills(launched, tmp_path):
    process = launched("0:stubborn:wait 1:saves:wait:pause60")
    for _ in range(2):
        assert "waiting" in process.stdout.readline()
    process.terminate()
    assert process.stdout.readline() == "[1] saved\n"
    process.terminate()  # within a second of the first: `timeout` sends each signal twice
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert not still_running(tmp_path)


def test_gpus_are_divided_evenly(launched):
    environment = {"XLA_FLAGS": "None", "JAX_PLATFORMS": ""}
    process = launched("0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6,7", **environment)
    said, error = process.communicate()
    devices = sorted(line for line in said.splitlines() if "devices" in line)
    assert devices == ["[0] devices None 4,5", "[1] devices None 6,7"], error
    # Without GPUs in JAX_PLATFORMS the variable stays as it is.
    process = launched("0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6", JAX_PLATFORMS="cpu")
    said, _ = process.communicate()
    assert said.count(" 4,5,6\n") == 2
    process = launched("0:show 1:show", CUDA_VISIBLE_DEVICES="4,5,6", **environment)
    assert "--num_processes=2: the 3 visible GPUs (4,5,6)" in process.communicate()[1]
    assert process.returncode == 2


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["train_loss"] for line in map(json.loads, lines)}


def test_two_processes_stopped_before_their_first_step_and_continued_make_the_run_of_one(tmp_path):
    """Each process has one device.

    The state that is saved is the one that `sharding.replicate` made, before any step.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    settings = [DIGITS, "--config.max_epochs=2"]
    experiments.run(cli.parse_config([*settings, "--config.num_devices=2"]), one)
    ended = launch(
        "local",
        "--num_processes=2",
        "--devices_per_process=1",
        "--module=tests.launch.stopped_first",
        "--",
        *settings,
        f"--workdir={two}",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("Stopped after step 0") == 1
    assert ended.stdout.count("complete, see") == 1
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert json.loads((two / "result.json").read_text())["num_devices"] == 2


def test_bad_input_of_main_is_shown_and_ends_with_2(tmp_path):
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
    "arguments, reason",
    [
        (["--", DIGITS], "needed: --num_processes"),
        (["--num_processes=2", "x"], "unknown arguments: x"),
        (
            ["--num_processes=2", "--config.seed=1"],
            "--config.seed=1: put the arguments of rethinking.main after --",
        ),
    ],
)
def test_bad_input_is_refused_with_its_reason(arguments, reason, capsys):
    refused("local", arguments, reason, capsys, required=("num_processes",))
