"""Several processes that make one run: they find each other, or say who is missing; one that is lost is named."""

import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from rethinking import distributed, rendezvous
from rethinking.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
# A process that only calls the roll, and then leaves it or not; no JAX, so that it starts at once.
CALLER = """
import sys, time
from rethinking import rendezvous
rendezvous.SILENCE_SECONDS, rendezvous.BEAT_SECONDS = 2.0, 0.1
roll = rendezvous.call_roll(rendezvous.Place(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), 60.0)
print("here", flush=True)
if sys.argv[4] == "leave":
    roll.leave()
else:
    time.sleep(120)
"""
# A process alone, which notices SIGTERM and goes on with what it was doing for a while.
LONE = """
import sys, time
from rethinking import distributed
with distributed.notice_sigterm(), distributed.notice_sigterm():  # a streamed run among several, or in a sweep
    print("begun", flush=True)
    while not distributed.sigterm_noticed():
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(float(sys.argv[1]))
print("saved", distributed.sigterm_noticed(), flush=True)
"""


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture
def start():
    """Starts Python with arguments, and kills in the end what did not end."""
    started = []

    def begin(*arguments, **environment):
        started.append(
            subprocess.Popen(
                [sys.executable, "-u", *map(str, arguments)],
                cwd=ROOT,
                text=True,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def call_roll(address, num_processes, process_id, timeout):
    try:
        return rendezvous.call_roll(rendezvous.Place(address, num_processes, process_id), timeout)
    except rendezvous.RendezvousError as error:
        return str(error)


def call_rolls(address, num_processes, present, timeout):
    """What each of the processes that are present is told."""
    with concurrent.futures.ThreadPoolExecutor(len(present)) as pool:
        return list(
            pool.map(lambda number: call_roll(address, num_processes, number, timeout), present)
        )


def wait_for(process, word):
    while (
        said := process.stdout.readline()
    ) and word not in said:  # Gloo prints, too, and into the same line
        pass
    assert said, process.stderr.read()


def test_those_who_do_not_come_are_named_to_those_who_do(address):
    began = time.monotonic()
    for reason in call_rolls(address, 5, [0, 2], 2.0):
        assert (
            f"processes 1, 3 and 4 of 5 did not come to {address} within 2 s (processes 0 and 2 did)"
            in reason
        )
    assert 2 <= time.monotonic() - began < 10


def test_process_0_is_missed_by_name(address):
    (reason,) = call_rolls(address, 2, [1], 1.0)
    assert f"process 0 of 2 did not answer process 1 at {address} within 1 s" in reason


def test_two_processes_of_one_number_are_refused(address):
    reasons = call_rolls(address, 3, [0, 1, 1], 30.0)
    assert all("a process 1 that is one too many" in reason for reason in reasons), reasons


def test_a_taken_port_is_named(address):
    port = address.partition(":")[2]
    with socket.create_server(("", int(port))):
        assert f"process 0 cannot listen on port {port}" in call_roll(address, 2, 0, 1.0)


def test_strangers_are_ignored_and_latecomers_are_not(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = pool.submit(call_roll, address, 3, 2, 60.0)  # before process 0
        time.sleep(0.5)
        first = pool.submit(call_roll, address, 3, 0, 60.0)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process_id": "?"}\n', b"\xff\n", b""):
            time.sleep(0.1)
            with socket.create_connection(address.split(":")) as stranger:
                stranger.sendall(said)
        rolls = [early, first, pool.submit(call_roll, address, 3, 1, 60.0)]
        for roll in rolls:
            roll.result().leave()  # else this very process would end


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize(
    "how, number",
    [
        ("failed or was killed", signal.SIGKILL),
        ("was lost: nothing was heard of it for 2 s", signal.SIGSTOP),
    ],
)
def test_a_lost_process_ends_the_others_which_name_it(how, number, lost, address, start):
    processes = [start("-c", CALLER, address, 3, each, "stay") for each in range(3)]
    for process in processes:
        wait_for(process, "here")
    time.sleep(3.0 if number == signal.SIGSTOP else 0.0)  # nobody is lost for having nothing to say
    processes[lost].send_signal(number)
    for each in {0, 1, 2} - {lost}:
        _, error = processes[each].communicate(timeout=20)
        assert processes[each].returncode == rendezvous.PEER_LOST
        assert (
            f"process {lost} of 3 (on {socket.gethostname()}) {how}, so process {each} ends too"
            in error
        )


@pytest.mark.parametrize("left", [0, 1])
def test_who_has_left_is_not_lost(left, address, start):
    what = ["leave" if number == left else "stay" for number in range(2)]
    processes = [start("-c", CALLER, address, 2, number, what[number]) for number in range(2)]
    assert processes[left].communicate(timeout=20) == ("here\n", "")
    time.sleep(3.0)
    assert processes[1 - left].poll() is None


def workers(start, address, what):
    processes = [start("tests/distributed_worker.py", address, 2, rank, what) for rank in range(2)]
    for process in processes:
        wait_for(process, "joined")
    return processes


@pytest.mark.parametrize(
    "what, exit_code, said",
    [
        ("fail", 1, "ValueError: out of luck"),
        ("exit", 2, ""),
        ("be_killed", -signal.SIGKILL, ""),
    ],
)
def test_a_failed_process_is_named_by_the_one_that_waits_for_it(
    what, exit_code, said, address, start
):
    waiting, failing = workers(start, address, what)
    began = time.monotonic()
    if what == "be_killed":
        failing.kill()
    _, error = failing.communicate(timeout=60)
    assert failing.returncode == exit_code
    assert said in error
    _, error = waiting.communicate(timeout=60)
    assert waiting.returncode == rendezvous.PEER_LOST
    assert "process 1 of 2" in error
    assert "Traceback" not in error
    assert time.monotonic() - began < 30


def test_all_processes_learn_of_a_preemption_at_the_same_step(address, start):
    processes = workers(start, address, "be_preempted")
    for process in processes:
        wait_for(process, "begun")
    processes[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    (step,) = {int(re.search(r"saved at step (\d+)", said)[1]) for said, _ in ends}
    assert step >= 3


def test_one_process_notices_sigterm_and_ends_at_the_second(start):
    process = start("-c", LONE, 0)
    wait_for(process, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "saving\nsaved True\n"
    assert process.returncode == 0
    process = start("-c", LONE, 60)
    wait_for(process, "begun")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "saving")
    process.send_signal(signal.SIGTERM)  # `timeout` sends two at once, which are one
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ((), "use launch.local"),
        (("localhost:1", 2), "all three or none"),
        (("localhost:1", 2, 2), "--process_id=2: must be from 0 to 1"),
        (("localhost", 2, 1), "must be HOST:PORT"),
    ],
)
def test_a_place_that_cannot_be_is_refused(arguments, reason, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(InputError, match=reason), distributed.join(*arguments):
        pass


def test_slurm_tells_processes_their_place(address, monkeypatch):
    # As srun sets them for the second task of node b of two with two tasks each.
    for name, value in {
        "JOB_ID": "4097",
        "STEP_NODELIST": "localhost,b",
        "NTASKS": "4",
        "PROCID": "3",
        "LOCALID": "1",
        "STEP_NUM_NODES": "2",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    missing = "process 0 of 4 did not answer process 3 at localhost:61441"
    with pytest.raises(rendezvous.RendezvousError, match=missing), distributed.join(timeout=0.5):
        pass


def test_main_says_who_is_missing(address, tmp_path):
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "rethinking.main",
            "--config=configs/quickstart.py:true_labels",
            f"--workdir={tmp_path / 'run'}",
            "--distributed",
            f"--coordinator_address={address}",
            "--num_processes=2",
            "--process_id=0",
            "--rendezvous_timeout=0.5",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == rendezvous.PEER_LOST
    assert "error: process 1 of 2 did not come" in ended.stderr
    assert "Traceback" not in ended.stderr
