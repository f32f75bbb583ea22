"""Programs that tests start in processes of their own, or call in this one."""

import contextlib
import io
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys

from absl import flags

from rethinking import cli
from tests import test_commands as commands

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


def call(name, *arguments, required=("config", "workdir")):
    """Does in this process what `python -m NAME` does, which takes seconds less.

    Returns how it ended, as subprocess.run does. The program must not start others.
    """
    logger, root = logging.getLogger("rethinking"), logging.getLogger()
    before = logger.handlers, logger.level, logger.propagate, root.level
    hangup, code = signal.getsignal(signal.SIGHUP), 0
    said, error = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
            main = commands.module(name).main
            main(cli.parse_flags([name, *map(str, arguments)], required))
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        signal.signal(signal.SIGHUP, hangup)
        flags.FLAGS.unparse_flags()
        logger.handlers, level, logger.propagate, root_level = before
        logger.setLevel(level)
        root.setLevel(root_level)
    return subprocess.CompletedProcess(name, code, said.getvalue(), error.getvalue())
