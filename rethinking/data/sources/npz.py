"""NumPy's .npz files with the arrays x_train, y_train, x_test and y_test, as Keras's mnist.npz.

x_val and y_val are the split "validation". Nothing is ever unpickled.
"""

import functools
import os
import pathlib
import zipfile
import zlib

import numpy as np

from rethinking.data.faults import system_cause, unreadable
from rethinking.data.sources import raw
from rethinking.data.sources.in_memory import ArrayDescription
from rethinking.errors import InputError

_KEYS = {f"{kind}_{ending}" for kind in "xy" for ending in raw.SPLITS}


def describe(name: str, path: pathlib.Path) -> ArrayDescription:
    """The set in the file `path`, read and checked.

    Raises InputError if the file is damaged or holds no set.
    """
    try:
        stat = os.stat(path)
        content = _read(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    return ArrayDescription(name, *content)


# A run describes the set before it loads it. Reading a large file takes seconds.
@functools.lru_cache(maxsize=1)
def _read(path: str, size: int, modified: int) -> raw.Prepared:
    """What the file of this size and time of change holds."""
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(
                    f"{path} holds a single array. Write it by np.savez(path, x_train=...)."
                )
            content = {key: file[key] if key in _KEYS else None for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, InputError) or system_cause(error):
            raise
        raise _damaged(path, error) from error
    return raw.prepared(raw.split_pairs(content, path), path)


def _damaged(path: str, error: Exception) -> InputError:
    if "Object arrays" in str(error):
        return InputError(
            f"{path} holds Python objects, which are not read, because that could run any code. "
            "Store arrays of numbers, and labels as numbers or as texts: y.astype(str)."
        )
    return InputError(f"{path} is damaged or not an .npz file ({error}). Write or copy it again.")
