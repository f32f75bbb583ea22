"""Calls a function in a process of its own, so that a crash ends that process alone."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from rethinking.errors import InputError


class DiedError(Exception):
    """The process ended without an answer; the message says how."""

    def __init__(self, exitcode: int):
        ended = f"exit code {exitcode}"
        if exitcode < 0:
            ended = signal.Signals(-exitcode).name
        super().__init__(f"its process ended with {ended}")


def call(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, called in a new process.

    The function and its arguments must be picklable. Raises the function's InputError, and
    DiedError if the process ends by a signal or by another error, whose traceback it prints.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    finally:
        process.join()
    if answer is None:
        raise DiedError(process.exitcode)
    value, error = answer
    if error is not None:
        raise error
    return value


def _answer(sender: Connection, function: Callable, arguments: tuple) -> None:
    try:
        sender.send((function(*arguments), None))
    except InputError as error:
        sender.send((None, error))
