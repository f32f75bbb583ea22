"""The JSON files of a run directory: reading them, and noticing what is damaged."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from etils import epath

from rethinking.errors import InputError

STATUSES = ("complete", "diverged")
_TEXTS = (
    *("experiment", "row", "device", "jax", "revision", "config_digest", "metrics_sha256"),
    *("matmul_precision", "float32_products"),
)
_LISTS = ("curve", "solutions", "sgd")
_COUNTS = ("seed", "num_devices", "num_params", "steps", "epochs", "num_weights")
_NUMBERS = (
    *("seconds", "fit_step", "train_accuracy", "test_accuracy", "best_test_accuracy", "train_loss"),
    *("examples_per_second", "depth", "width", "train_error", "max_residual", "test_error"),
    *("residual", "norm", "condition", "gram_seconds", "factor_seconds", "solve_seconds"),
    "peak_bytes",
)
# Fields of a training line that a result repeats, with their names there.
_REPEATED = {"step": "steps", "epoch": "epochs", "train_accuracy": "train_accuracy"} | {
    name: name for name in ("test_accuracy", "train_loss", "seconds")
}


class DamagedFile(InputError):
    """A file of a run directory is damaged. The message names the file and the remedy."""


def sha256(value: Any) -> str:
    """The SHA-256 of a JSON value, in hexadecimal. The order of an object's keys has no effect."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    """A result or a line without the fields in which two equal runs differ: times and memory."""
    return {name: value for name, value in record.items() if not _is_timing(name)}


def _is_timing(name: str) -> bool:
    return name in ("examples_per_second", "peak_bytes") or name.endswith("seconds")


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """`record` with the digest of its other fields, which `is_intact` compares.

    Equal runs have equal digests: times are left out. The values are those that JSON gives back:
    numbers that it does not have become null.
    """
    record = json.loads(json.dumps(finite(record)))
    return record | {"sha256": sha256(untimed(record))}


def is_intact(record: dict[str, Any]) -> bool:
    """Whether the digest in `record` belongs to it. True for old records, which have no digest."""
    if "sha256" not in record:
        return True
    others = {name: value for name, value in record.items() if name != "sha256"}
    return record["sha256"] == sha256(untimed(others))


def digest_of_lines(lines: Iterable[dict[str, Any]]) -> str:
    """What a result has as `metrics_sha256`: the digest of its lines, without times."""
    return sha256([untimed(line) for line in lines])


def read_object(file: epath.Path | pathlib.Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises DamagedFile, with `remedy`, if the file holds none."""
    try:
        value = json.loads(file.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DamagedFile(f"{file} is damaged: it is not JSON ({error}). {remedy}") from None
    if not isinstance(value, dict):
        raise DamagedFile(f"{file} is damaged: it is not a JSON object. {remedy}")
    return value


def read_result(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The contents of a run directory's result.json; None if it has none.

    Raises DamagedFile if the file is not the result of a run, or not as it was written.
    """
    file = epath.Path(workdir) / "result.json"
    remedy = "Remove this file. Then the command of the run writes it again."
    try:
        result = read_object(file, remedy)
    except FileNotFoundError:
        return None
    problem = _problem(result)
    if problem is not None:
        raise DamagedFile(f"{file} is damaged: {problem}. {remedy}")
    return result


def _problem(result: dict[str, Any]) -> str | None:
    """Why this is not the result of a run, in words; None if it can be one."""
    if result.get("status") not in STATUSES:
        return f"its status is {result.get('status')!r}, not complete or diverged"
    for name, value in result.items():
        if name in _TEXTS and not isinstance(value, str):
            return f"{name} is not a text"
        if name in _LISTS and not isinstance(value, list):
            return f"{name} is not a list"
        if name in _COUNTS and type(value) is not int:
            return f"{name} is not a whole number"
        if name in _NUMBERS and value is not None and not is_number(value):
            return f"{name} is not a number"
    if not is_intact(result) or ("metrics_sha256" in result and "sha256" not in result):
        return "its numbers do not match its field sha256, so one of them has changed"
    return None


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number. JSON's true and false are not."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def read_lines(file: epath.Path | pathlib.Path) -> list[dict[str, Any]]:
    """The objects in a file's lines, up to the first damaged line.

    A killed process may leave its last line half written.
    """
    return read_undamaged(file)[0]


def read_undamaged(file: epath.Path | pathlib.Path) -> tuple[list[dict[str, Any]], int | None]:
    """The objects up to the first damaged line, and the number of that line, from 1, or None."""
    texts = file.read_bytes().decode("utf-8", "replace").splitlines() if file.exists() else []
    lines: list[Any] = []
    try:
        # In one call, because then all lines share the memory of their keys.
        lines = json.loads(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        with contextlib.suppress(ValueError, RecursionError):
            for text in texts:
                lines.append(json.loads(text))
    for i, line in enumerate(lines):
        if not isinstance(line, dict):
            return lines[:i], i + 1
    return lines, None if len(lines) == len(texts) else len(lines) + 1


def read_each(file: epath.Path | pathlib.Path) -> list[Any]:
    """The value of each line, None for a line that is not JSON.

    The last line does not count if it was cut short.
    """
    text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
    found = []
    for line in text.splitlines():
        value = None
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
        found.append(value)
    if found and found[-1] is None and not text.endswith("\n"):
        found.pop()
    return found


def check_metrics(workdir: str | os.PathLike, result: dict[str, Any]) -> str | None:
    """Why metrics.jsonl is not the file that `result` was made from, in words; None if it is.

    An old result without a digest is compared with the last line alone.
    """
    file = epath.Path(workdir) / "metrics.jsonl"
    lines, damaged = read_undamaged(file)
    if damaged is not None:
        return f"{file} is damaged in line {damaged}"
    if "metrics_sha256" in result and result["metrics_sha256"] != digest_of_lines(lines):
        return f"{file} has changed since the run ended: its lines do not match result.json"
    if "steps" not in result:  # not a training run
        return None
    if not lines:
        return f"{file} is empty or missing"
    for name, in_result in _REPEATED.items():
        differs = lines[-1].get(name) != result.get(in_result)
        if name in lines[-1] and in_result in result and differs:
            return (
                f"{file} does not end where the run ended: {name} is {lines[-1][name]} there and "
                f"{result[in_result]} in result.json"
            )
    return None


def finite(value: Any) -> Any:
    """`value` with None in place of nan and inf, at any depth."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
