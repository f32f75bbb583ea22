"""Whether the data sets of the config files are prepared."""

import os
from collections.abc import Iterator, Sequence

from launch.checks import FAIL, NOTE, OK, Line
from rethinking import rows
from rethinking.config import load_file
from rethinking.data import source
from rethinking.data.sources import tfds
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError


def check(files: Sequence[str], data_dir: str | None) -> Iterator[Line]:
    """A line for each set. A missing set is FAIL if `files` need it, and NOTE if only others do.

    Raises InputError if a config file cannot be read.
    """
    needed: dict[str, list[str]] = {}
    for file in files:
        module = load_file(file)
        for row in module.ROWS:
            _note(needed, module.get_config(row), file)
    others: dict[str, list[str]] = {}
    for experiment, known in rows.EXPERIMENTS.items():
        for row in known.rows:
            _note(others, known.get_config(row), f"configs/{experiment}.py")
    try:
        folder = tfds.resolve_data_dir(data_dir)
    except InputError as error:
        yield Line(FAIL, "data", str(error))
        return
    if not folder.is_dir():
        given = "--data_dir" if data_dir else "$TFDS_DATA_DIR"
        if data_dir or os.environ.get("TFDS_DATA_DIR"):
            what = "is a file" if folder.exists() else "does not exist"
            yield Line(
                FAIL, "data", f"{folder} {what}. Correct {given}, or prepare the sets there."
            )
    for name in {**needed, **others}:
        files_of_set = needed.get(name) or others[name]
        yield _describe(name, files_of_set, data_dir, is_needed=name in needed)


def _note(sets: dict[str, list[str]], config, file: str) -> None:
    """Notes that a config file uses a set, unless the set comes with the package."""
    name = config.data.name
    if name != "digits" and file not in sets.setdefault(name, []):
        sets[name].append(file)


def _describe(name: str, files: list[str], data_dir: str | None, is_needed: bool) -> Line:
    users = ", ".join(files)
    try:
        found = source.find(name, data_dir, train=False, evaluation=Evaluation(needed=False))
        found.check()
    except InputError as error:
        first = str(error).splitlines()[0]
        return Line(FAIL if is_needed else NOTE, "data", f"{first} (for {users})")
    sizes = f"{found.info.num_train:,} training and {found.info.num_test:,} test examples"
    return Line(OK, "data", f"{name}: {sizes} (for {users})")
