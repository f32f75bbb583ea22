"""rethinking.rendezvous: processes find each other, or name the missing and the lost ones."""

import concurrent.futures
import signal
import socket
import time

import pytest

from rethinking import rendezvous
from tests.started import free_address, python_processes, wait_for

# A process that joins, and then leaves or stays. It imports no JAX, so that it starts at once.
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


@pytest.fixture
def address():
    return free_address()


@pytest.fixture
def start():
    with python_processes() as start:
        yield start


def call_roll(address, num_processes, process_id, timeout):
    """Joins as one of the processes. Returns the roll or the error message."""
    try:
        return rendezvous.call_roll(rendezvous.Place(address, num_processes, process_id), timeout)
    except rendezvous.RendezvousError as error:
        return str(error)


def call_rolls(address, num_processes, present, timeout):
    """Lets the processes `present` join. Returns the roll or the error message of each."""
    with concurrent.futures.ThreadPoolExecutor(len(present)) as pool:
        rolls = [
            pool.submit(call_roll, address, num_processes, number, timeout) for number in present
        ]
        return [roll.result() for roll in rolls]


def test_missing_processes_are_named(address):
    began = time.monotonic()
    for reason in call_rolls(address, 5, [0, 2], 2.0):
        assert reason.startswith(
            f"processes 1, 3 and 4 of 5 did not connect to {address} within 2 s "
            "(processes 0 and 2 did)"
        )
    assert 2 <= time.monotonic() - began < 10


def test_a_missing_process_0_is_named(address):
    (reason,) = call_rolls(address, 2, [1], 1.0)
    assert f"process 0 of 2 did not answer process 1 at {address} within 1 s" in reason


def test_two_processes_of_one_number_are_refused(address):
    reasons = call_rolls(address, 3, [0, 1, 1], 30.0)
    assert all(
        "process 1 on" in reason and "cannot join: another process has this number" in reason
        for reason in reasons
    ), reasons


def test_a_taken_port_is_named(address):
    port = address.partition(":")[2]
    with socket.create_server(("", int(port))):
        assert f"process 0 cannot listen on port {port}" in call_roll(address, 2, 0, 1.0)


def test_other_programs_are_ignored_and_late_processes_are_not(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = pool.submit(call_roll, address, 3, 2, 60.0)  # earlier than process 0
        time.sleep(0.5)
        first = pool.submit(call_roll, address, 3, 0, 60.0)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process_id": "?"}\n', b"\xff\n", b""):
            time.sleep(0.1)
            with socket.create_connection(address.split(":")) as other:
                other.sendall(said)
        rolls = [early, first, pool.submit(call_roll, address, 3, 1, 60.0)]
        for roll in rolls:
            roll.result().leave()  # otherwise the roll would end the tests


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize(
    "how, number",
    [
        ("failed or was killed", signal.SIGKILL),
        ("was lost: it sent nothing for 2 s", signal.SIGSTOP),
    ],
)
def test_a_lost_process_ends_the_others_which_name_it(how, number, lost, address, start):
    processes = [start("-c", CALLER, address, 3, each, "stay") for each in range(3)]
    for process in processes:
        wait_for(process, "here")
    # A process without messages is not lost as long as it gives signs of life.
    time.sleep(3.0 if number == signal.SIGSTOP else 0.0)
    processes[lost].send_signal(number)
    for each in {0, 1, 2} - {lost}:
        _, error = processes[each].communicate(timeout=20)
        assert processes[each].returncode == rendezvous.PEER_LOST
        name = f"process {lost} of 3 (on {socket.gethostname()})"
        assert f"error: {name} {how}, so process {each} ends too." in error


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_that_has_left_is_not_lost(left, address, start):
    what = ["leave" if number == left else "stay" for number in range(2)]
    processes = [start("-c", CALLER, address, 2, number, what[number]) for number in range(2)]
    assert processes[left].communicate(timeout=20) == ("here\n", "")
    time.sleep(3.0)
    assert processes[1 - left].poll() is None
