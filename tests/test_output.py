"""A run goes on when nobody can read its output any more."""

import errno
import io
import os
import signal
import subprocess
import sys

from rethinking.cli.output import Lasting
from tests.started import ROOT

# A program that prints after its output is gone, as the C library and a child process do, too.
PRINTS = """
import contextlib, os, subprocess, sys
from rethinking.cli.output import outlive_terminal
outlive_terminal()
print("begun", flush=True)
if sys.stdin:
    with contextlib.suppress(OSError):
        sys.stdin.readline()  # until the connection is lost
for stream in (sys.stdout, sys.stderr):
    print("x" * 100_000, file=stream, flush=True)
    os.write(stream.fileno(), b"x")
subprocess.run(["echo", "x"], check=True)
print("still in the buffer at the end")
open(sys.argv[1], "w").write("finished")
"""


def test_a_run_without_a_reader_and_without_a_terminal_goes_on_and_finishes(tmp_path):
    workdir = tmp_path / "run"
    arguments = [
        "--config=configs/quickstart.py:true_labels",
        f"--workdir={workdir}",
        *("--config.max_epochs=2", "--config.fit_accuracy=1", "--config.num_devices=1"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "rethinking.main", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout.readline()  # the run's log
    process.stdout.close()
    process.send_signal(signal.SIGHUP)  # as a terminal does when it closes
    assert process.wait(timeout=120) == 0
    assert (workdir / "result.json").exists()
    assert not (workdir / "errors.txt").exists()


def test_a_lost_connection_ends_neither_the_program_nor_its_children(tmp_path):
    terminal, end = os.openpty()
    command = [sys.executable, "-c", PRINTS, tmp_path / "finished"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    assert b"begun" in os.read(terminal, 100)
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "finished").read_text() == "finished"


def test_output_that_is_closed_from_the_start_is_not_taken_for_a_file_of_the_run(tmp_path):
    command = f'"{sys.executable}" -c "$0" "$1" <&- >&- 2>&-'
    ended = subprocess.run(["bash", "-c", command, PRINTS, tmp_path / "finished"], cwd=ROOT)
    assert ended.returncode == 0
    assert (tmp_path / "finished").read_text() == "finished"


def test_a_full_disk_loses_lines_and_not_the_run():
    class Full(io.StringIO):
        full = True

        def write(self, text):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    disk = Full()
    stream = Lasting(disk)
    assert stream.write("lost") == 4
    disk.full = False
    print("kept", file=stream, flush=True)
    assert disk.getvalue() == "kept\n"
