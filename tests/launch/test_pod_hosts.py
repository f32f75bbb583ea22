"""launch.pods.hosts and agent: what the hosts of a slice are asked to do, in a shell here."""

import os
import re
import socket
import subprocess
import sys
import time
import types

import pytest

from launch.pods import agent, hosts
from launch.run_list import Run
from rethinking.rendezvous.peer import RUN_WORD
from tests.launch.programs import put_program, words

RUNS = [Run(None, "gs://b/it's a", ["--workdir=gs://b/it's a", "--config=x"])]
JOB = hosts.name_job(RUNS)
# In place of sudo, which here takes no chips away and touches no file of others.
SUDO = """
case "$1" in
lsof) cat ~/holds_chips;;
rm) echo "$@" >> ~/removed;;
*) exec "$@";;
esac
"""


class Shell:
    """A host: its home folder, and programs that hide those of this machine."""

    def __init__(self, home):
        self.home = home
        self._environment = os.environ | {"HOME": str(home)}
        self._environment["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
        put_program(home / "bin", "pkill", "printf '%s\\0' \"$@\" >> ~/pkill; exit ${KILLED:-0}")
        put_program(home / "bin", "sudo", SUDO)
        (home / "holds_chips").touch()

    def run(self, command, **environment):
        """What sshd does. It would wait for a program that holds the connection open."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.home,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def ask(self):
        (host,) = hosts.read(self.run(hosts.ASK).stdout, JOB)
        assert host.name == socket.gethostname()
        return host.state


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_run(shell):
    state = (shell.home / ".rethinking/state").read_text()
    assert re.fullmatch(rf"{JOB} running (\d+)\n", state)
    os.kill(int(state.split()[2]), 9)
    wait_for(lambda: shell.ask() == "died")


def test_runs_go_on_without_the_connection_and_leave_a_log_and_a_state(shell):
    python = shell.home / "rethinking/.venv/bin"
    put_program(
        python, "python", f"printf '%s\\0' \"$@\" > {shell.home}/asked; echo begun; sleep 60"
    )
    assert shell.ask() == "new"
    deadline = hosts.delete_after(0.01, ["touch", f"{shell.home}/deleted"])
    began = shell.run(hosts.start(JOB, RUNS, ["echo mounted >> ~/mounts"], deadline))
    assert (began.returncode, began.stdout, began.stderr) == (0, "", "")
    assert shell.ask() == "running"
    wait_for(lambda: (shell.home / ".rethinking/log").read_text() == "begun\n")
    assert words(shell.home / "asked")[:4] == ["-u", "-m", "launch.pods.agent", JOB]
    assert words(shell.home / "asked")[4] == (
        '[{"workdir": "gs://b/it\'s a", "arguments": ["--workdir=gs://b/it\'s a", "--config=x"]}]'
    )
    assert (shell.home / "mounts").read_text() == "mounted\n"
    wait_for((shell.home / "deleted").exists)
    kill_run(shell)
    assert hosts.read(shell.run(hosts.ASK).stdout, "another job")[0].state == "new"


def test_a_host_that_cannot_be_prepared_begins_nothing(shell):
    (shell.home / "rethinking").mkdir()
    assert shell.run(hosts.start(JOB, RUNS, ["false"])).returncode == 1
    assert shell.ask() == "new"


def test_what_an_earlier_run_left_is_ended_first(shell):
    left = subprocess.Popen(["sleep", "60"])  # it holds a chip
    (shell.home / "holds_chips").write_text(f"{left.pid}\n{left.pid}\n")
    shell.run(hosts.FREE)
    assert left.wait(timeout=10) == -9
    assert (shell.home / "removed").read_text() == "rm -f /tmp/libtpu_lockfile\n"
    killed = words(shell.home / "pkill")
    assert killed == [
        *("--signal", "KILL", "--full", "[l]aunch.pods.agent"),
        *("--signal", "KILL", "--full", "[r]ethinking.main"),
    ]


def test_no_pattern_matches_the_command_that_looks_for_it(shell):
    start = hosts.start(JOB, RUNS, deadline=hosts.delete_after(5, ["gcloud"]))
    for command in (hosts.STOP, hosts.FREE, hosts.FORCE_STOP, start):
        patterns = re.findall(r"--full '([^']+)'", command)
        assert patterns
        for pattern in patterns:
            assert not re.search(pattern, command)
    assert re.search("[l]aunch.pods.agent", f"python -u -m launch.pods.agent {JOB} []")
    assert re.search("[r]ethinking-deadline", "sh -c sleep 5; exec gcloud rethinking-deadline")


def test_stop_tells_the_agent_that_somebody_wanted_it(shell):
    assert shell.run(hosts.STOP, KILLED="1").stdout == "nothing is running\n"
    assert not (shell.home / ".rethinking/stopped").exists()
    assert shell.run(hosts.STOP).stdout == ""
    assert (shell.home / ".rethinking/stopped").exists()


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Lets the agent make runs whose exit codes and results are given. Returns its state."""

    def make(*runs, stopped=False):
        begun = []

        def run(command, env, stdin):
            code, has_result = runs[len(begun)]
            begun.append((command, env[RUN_WORD]))
            if has_result:
                (tmp_path / f"run {len(begun)}").mkdir()
                (tmp_path / f"run {len(begun)}/result.json").touch()
            return types.SimpleNamespace(returncode=code)

        monkeypatch.setattr(agent.subprocess, "run", run)
        if stopped:
            (tmp_path / "stopped").touch()
        listed = [
            {"workdir": str(tmp_path / f"run {number + 1}"), "arguments": [f"--number={number}"]}
            for number in range(3)
        ]
        agent.main(JOB, listed, tmp_path, seconds=0.0)
        (host,) = hosts.read(f"host a: {(tmp_path / 'state').read_text()}", JOB)
        return host, begun

    return make


def test_the_agent_makes_one_run_after_another(made):
    host, begun = made(*3 * [(0, True)])
    assert host.state == "finished"
    main = [sys.executable, "-u", "-m", "rethinking.main", "--distributed"]
    assert [command for command, _ in begun] == [[*main, f"--number={n}"] for n in range(3)]
    assert len({word for _, word in begun}) == 3  # so that leftovers of one cannot join another


@pytest.mark.parametrize(
    "second, state, code",
    [((2, False), "failed", 2), ((-9, False), "failed", -9), ((0, False), "saved", 0)],
)
def test_the_agent_ends_at_a_run_without_a_result(second, state, code, made, tmp_path):
    host, begun = made((0, True), second)
    assert host == hosts.Host("a", state, code, str(tmp_path / "run 2"))
    assert len(begun) == 2


def test_the_agent_says_that_it_was_stopped(made):
    host, begun = made((0, True), stopped=True)
    assert host.state == "stopped"
    assert len(begun) == 1
