"""rethinking.rendezvous: processes find each other, or name the missing and the lost ones."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import struct
import threading
import time

import psutil
import pytest

from rethinking import rendezvous
from rethinking.rendezvous import entrance
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


NEWCOMER = {"process_id": 1, "num_processes": 3, "host": "h", "word": ""}
FOREIGN = [
    b'{"process_id": 1e999, "num_processes": 3, "host": "h", "word": ""}\n',
    b"[" * 50_000 + b"\n",
    b'{"a":' * 10_000 + b"\n",
    b"x" * 2**20,
    b"\n\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a greeting of TLS
    b'{"process_id": 1, "host": "h"}\n',
    *(
        json.dumps(NEWCOMER | wrong).encode() + b"\n"
        for wrong in (
            {"process_id": True},
            {"process_id": "1"},
            {"process_id": 1.0},
            {"process_id": None},
            {"process_id": [1]},
            {"num_processes": 2},
            {"num_processes": "3"},
            {"host": 5},
            {"host": "\x1b[2J"},
            {"host": "h" * 5000},
            {"word": "of another run"},
            {"word": None},
        )
    ),
]


@contextlib.contextmanager
def foreign_clients(address, stop):
    """Connections that say something wrong, nothing, or a byte at a time, until `stop` is set."""
    with contextlib.ExitStack() as opened:

        def connect():
            return opened.enter_context(socket.create_connection(address.split(":"), timeout=5))

        slow = [connect() for _ in range(5)]
        for _ in range(20):
            connect()
        reset = connect()
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
        for said in FOREIGN:
            with contextlib.suppress(OSError):
                connect().sendall(said)

        def drip():
            while not stop.wait(0.05):
                for client in slow:
                    with contextlib.suppress(OSError):
                        client.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        yield
        stop.set()
        dripping.join()


def test_no_foreign_client_keeps_processes_from_joining(address, monkeypatch):
    monkeypatch.setattr(rendezvous, "GREETING_SECONDS", 0.5)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(call_roll, address, 3, 0, 60.0)
        time.sleep(0.3)
        began = time.monotonic()
        with foreign_clients(address, threading.Event()):
            time.sleep(0.7)  # longer than a connection may take for its first message
            rolls = [first, *(pool.submit(call_roll, address, 3, each, 60.0) for each in (1, 2))]
            for roll in rolls:
                roll.result().leave()
    assert time.monotonic() - began < 10


def test_foreign_clients_do_not_keep_a_timeout_from_coming(address, monkeypatch):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        began = time.monotonic()
        first = pool.submit(call_roll, address, 3, 0, 1.0)
        time.sleep(0.3)
        with foreign_clients(address, threading.Event()):
            assert "processes 1 and 2 of 3 did not connect" in first.result()
    assert time.monotonic() - began < 4


def test_more_connections_than_a_process_may_open_do_no_harm(address, monkeypatch):
    monkeypatch.setattr(entrance, "MOST_WAITING", 10)
    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.ExitStack() as opened:
        first = pool.submit(call_roll, address, 2, 0, 60.0)
        time.sleep(0.3)
        for _ in range(50):
            opened.enter_context(socket.create_connection(address.split(":")))
        for roll in (pool.submit(call_roll, address, 2, 1, 60.0), first):
            roll.result().leave()


def test_a_foreign_server_is_not_taken_for_process_0(address):
    """It answers with a line, or with a byte at a time, and process 0 takes its port later."""
    host, port = address.split(":")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with socket.create_server((host, int(port))) as server:
            second = pool.submit(call_roll, address, 2, 1, 30.0)
            for said in (b"220 mail\n", b'{"begin": 1}\n', b'{"error": 5}\n', b"[" * 10**5 + b"\n"):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(said)
        for roll in (pool.submit(call_roll, address, 2, 0, 30.0), second):
            roll.result().leave()


def test_a_process_that_was_started_again_takes_its_place(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(call_roll, address, 3, 0, 60.0)
        time.sleep(0.3)
        killed = socket.create_connection(address.split(":"))
        killed.sendall(json.dumps(NEWCOMER).encode() + b"\n")
        time.sleep(0.3)
        killed.close()
        rolls = [first, pool.submit(call_roll, address, 3, 1, 60.0)]
        time.sleep(0.5)
        rolls.append(pool.submit(call_roll, address, 3, 2, 60.0))
        for roll in rolls:
            roll.result().leave()


def test_a_process_of_a_run_of_another_size_is_told_so_and_the_run_goes_on(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(call_roll, address, 2, 0, 60.0)
        stranger = pool.submit(call_roll, address, 3, 1, 60.0)
        assert "process 0 at" in stranger.result() and "--num_processes=2" in stranger.result()
        for roll in (pool.submit(call_roll, address, 2, 1, 60.0), first):
            roll.result().leave()


def listening(port):
    """The addresses on which this process listens at a port."""
    connections = psutil.Process().net_connections("tcp")
    return {each.laddr.ip for each in connections if each.laddr.port == port and not each.raddr}


@pytest.mark.parametrize(
    "host, expected",
    [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), (socket.gethostname(), "0.0.0.0")],
)
def test_a_run_on_this_machine_listens_to_this_machine_alone(host, expected, address):
    port = int(address.split(":")[1])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(call_roll, f"{host}:{port}", 2, 0, 1.0)
        time.sleep(0.5)
        assert listening(port) == {expected}
        first.result()


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
