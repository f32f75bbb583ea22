"""Python processes that the tests of rendezvous and distributed start."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def free_address():
    """HOST:PORT of a port that no program uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@contextlib.contextmanager
def python_processes():
    """Yields a function that starts Python with arguments. Kills what is left at the end."""
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

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
            process.communicate()


def wait_for(process, word):
    """Reads the output up to a line with `word`. Gloo may print into the same line."""
    line = process.stdout.readline()
    while line and word not in line:
        line = process.stdout.readline()
    assert line, process.stderr.read()
