"""rethinking.distributed: processes join, end together and stop together."""

import concurrent.futures
import re
import signal
import time

import pytest

from rethinking import distributed, rendezvous
from rethinking.errors import InputError
from rethinking.rendezvous import slurm
from tests.started import call, free_address, python_processes, wait_for

# A single process that notices SIGTERM and works on for a while. Calls are nested where a run is
# part of a sweep.
LONE = """
import sys, time
from rethinking import distributed
with distributed.notice_sigterm(), distributed.notice_sigterm():
    print("begun", flush=True)
    while not distributed.sigterm_noticed():
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(float(sys.argv[1]))
print("saved", distributed.sigterm_noticed(), flush=True)
"""


@pytest.fixture
def address():
    return free_address()


@pytest.fixture
def start():
    with python_processes() as start:
        yield start


def workers(start, address, what):
    """Starts two processes with two devices each. Returns them when both have joined."""
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
def test_the_process_that_waits_for_a_failed_one_names_it(what, exit_code, said, address, start):
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


def test_a_single_process_notices_sigterm_and_ends_at_the_second(start):
    process = start("-c", LONE, 0)
    wait_for(process, "begun")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "saving\nsaved True\n"
    assert process.returncode == 0
    process = start("-c", LONE, 60)
    wait_for(process, "begun")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "saving")
    process.send_signal(signal.SIGTERM)  # within a second: `timeout` sends each signal twice
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM


def test_in_another_thread_a_run_works_and_leaves_the_signals_alone():
    def handler():
        with distributed.notice_sigterm():
            return signal.getsignal(signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(handler).result() == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ((), "use launch.local"),
        (("localhost:1", 2), "all three or none"),
        (("localhost:1", 2, 2), "--process_id=2: must be from 0 to 1"),
        *((("localhost" + port, 2, 1), "must be HOST:PORT") for port in ("", ":", ":0", ":65536")),
        ((":1234", 2, 1), "must be HOST:PORT"),
    ],
)
def test_an_impossible_place_is_refused(arguments, reason, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(InputError, match=reason), distributed.join(*arguments):
        pass


def test_slurm_tells_processes_their_place(monkeypatch):
    # What srun sets for the second task on node b, with two nodes and two tasks on each.
    monkeypatch.setenv("SLURM_JOB_ID", "4097")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost,b")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    missing = "process 0 of 4 did not answer process 3 at localhost:61441"
    with pytest.raises(rendezvous.RendezvousError, match=missing), distributed.join(timeout=0.5):
        pass


SEES_ALL = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}
EIGHT = {"SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}
FOUR = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "4"}
ONE = {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
UNEVEN = {"SLURM_NTASKS": "7", "SLURM_STEP_NUM_NODES": "3", "SLURM_STEP_TASKS_PER_NODE": "1(x2),5"}


@pytest.mark.parametrize(
    "tasks, number, gpus, taken",
    [
        (EIGHT, "3", SEES_ALL, [3]),
        (EIGHT, "3", {"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "8"}, None),  # bound
        (EIGHT, "3", {"CUDA_VISIBLE_DEVICES": "0"}, None),
        (EIGHT, "3", {"CUDA_VISIBLE_DEVICES": "GPU-8f0c"}, None),
        (EIGHT, "3", {}, [3]),  # GPUs without a resource of Slurm
        (EIGHT, "3", {"CUDA_VISIBLE_DEVICES": "-1"}, None),  # hidden: on the processor
        (FOUR, "3", SEES_ALL, [6, 7]),
        (FOUR, "3", {"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "8"}, None),
        (ONE, "0", SEES_ALL, None),  # not the first GPU alone, while seven idle
        (UNEVEN | {"SLURM_NODEID": "1"}, "0", SEES_ALL, None),
        (
            UNEVEN | {"SLURM_NODEID": "2"},
            "4",
            {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4", "SLURM_GPUS_ON_NODE": "5"},
            [4],
        ),
        (FOUR | {"SLURM_STEP_TASKS_PER_NODE": ""}, "1", SEES_ALL, [2, 3]),
    ],
)
def test_a_task_of_slurm_takes_its_own_gpus_among_those_it_sees(tasks, number, gpus, taken):
    assert slurm.local_devices({"SLURM_LOCALID": number, **tasks, **gpus}) == taken


def test_tasks_that_cannot_divide_their_gpus_are_refused():
    gpus = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_GPUS_ON_NODE": "3"}
    with pytest.raises(InputError, match="4 tasks on n7 cannot divide its 3 GPUs evenly"):
        slurm.local_devices({"SLURM_LOCALID": "0", "SLURMD_NODENAME": "n7", **FOUR, **gpus})


def test_jax_gets_the_gpus_of_the_task(monkeypatch):
    place = {"SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": "3"}
    for name, value in (place | FOUR | SEES_ALL | {"SLURM_LOCALID": "3"}).items():
        monkeypatch.setenv(name, value)
    assert distributed._ask_cluster(1.0) == ["localhost:61441", 4, 3, [6, 7]]


def test_main_names_the_missing_process(address, tmp_path):
    ended = call(
        "rethinking.main",
        "--config=configs/quickstart.py:true_labels",
        f"--workdir={tmp_path / 'run'}",
        "--distributed",
        f"--coordinator_address={address}",
        "--num_processes=2",
        "--process_id=0",
        "--rendezvous_timeout=0.5",
    )
    assert ended.returncode == rendezvous.PEER_LOST
    assert "error: process 1 of 2 did not connect" in ended.stderr
    assert "Traceback" not in ended.stderr
