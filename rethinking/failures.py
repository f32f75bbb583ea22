"""What to say about an exception that ends a run: the user's mistake, or one of this package.

A mistake in a Python file of the user, such as a config file or a network, is named by its file and
line. For a mistake of this package, the whole traceback is needed.
"""

import contextlib
import os
import pathlib
import sysconfig
import time
import traceback
from collections.abc import Iterator

from etils import epath

from rethinking.errors import InputError

_PACKAGE = pathlib.Path(__file__).parent
# The folders of this project. All other files outside libraries are the user's.
_OURS = (f"{_PACKAGE}{os.sep}", f"{_PACKAGE.with_name('launch')}{os.sep}")
_LIBRARIES = tuple(
    sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
# The file in a run directory that keeps the tracebacks.
LOG = "errors.txt"
LONGEST = 1000  # characters of an exception's text that a message shows


def place(error: BaseException) -> str | None:
    """FILE, line N: where the user's own Python file goes wrong. None if the mistake is not there.

    That is the innermost line outside libraries. If it belongs to this package, the answer is None.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return f"{error.filename}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(_OURS):
            return None
        if _is_users(frame.filename):
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _is_users(file: str) -> bool:
    return not (file.startswith(_OURS) or is_library(file))


def is_library(file: str) -> bool:
    """Whether a file of Python belongs to a library: neither to this project nor to the user."""
    # Names such as <frozen importlib> and <string> are not files.
    return file.startswith((*_LIBRARIES, "<"))


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Inside, the user's own code runs. Its mistakes become InputErrors that name file and line.

    `what` begins the message. InputErrors, and mistakes of this package, are raised unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if place(error) is None:
            raise
        raise InputError(f"{what}: {describe(error)}") from error


def is_correctable(error: BaseException) -> bool:
    """Whether the user can correct this: bad input, a mistake in their own file, no memory left."""
    return isinstance(error, InputError) or _is_memory(error) or place(error) is not None


def _is_memory(error: BaseException) -> bool:
    # XLA's errors have a type of their own, whose name has changed before.
    return isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED")


def describe(error: BaseException) -> str:
    """The message for the terminal.

    For an InputError it is the reason, and for too little memory the remedies. For a mistake in the
    user's own file it is the place. For any other exception it is the traceback.
    """
    if isinstance(error, InputError):
        return str(error)
    if _is_memory(error):
        return (
            f"too little memory. {summary(error)} Choose a smaller batch, fewer examples or a "
            "smaller network, or use more devices. The same command then continues."
        )
    where = place(error)
    if where is None:
        return "".join(traceback.format_exception(error)).rstrip()
    return f"{where}: {summary(error)} Correct that line."


def summary(error: BaseException) -> str:
    """The kind and the text of an exception, shortened to a few lines."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    ending = "" if text.endswith((".", "!", "?")) else "."
    return f"{type(error).__name__}: {text}{ending}" if text else f"{type(error).__name__}."


def placed_summary(error: BaseException) -> str:
    """The `summary`, after the `place` if there is one."""
    where = place(error)
    return f"{where}: {summary(error)}" if where else summary(error)


def record(error: BaseException, workdir: str | os.PathLike) -> None:
    """Appends the traceback to errors.txt in the run directory `workdir`.

    It writes nothing for an InputError, unless a mistake in the user's own file is its cause. It
    writes nothing into a folder that holds something else. It never raises an exception, because
    that would hide the first one.
    """
    if isinstance(error, InputError) and (error.__cause__ is None or not place(error.__cause__)):
        return
    with contextlib.suppress(OSError, ImportError):
        folder = epath.Path(workdir)
        file = folder / LOG
        there = {child.name for child in folder.iterdir()} if folder.is_dir() else set()
        if there and not there & {"config.json", ".lock", LOG}:
            return
        folder.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if LOG in there else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(traceback.format_exception(error))
        file.write_text(f"{before}{when}\n{lines}\n")
