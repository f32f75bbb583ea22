"""The files of one run directory, checked: each value has the type that the report relies on.

Anyone may have written these files, and a disk may have damaged them. Each function raises
ValueError, which names the file and the field, or OSError if the file cannot be read.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rethinking import experiments
from rethinking.config.fields import Field
from rethinking.report import kinds, paper
from rethinking.runs import json_files

# Larger numbers count as infinite, because sums of their squares would be.
LARGEST = 1e150
MOST_NESTED = 20
_TEXTS = (
    *("experiment", "row", "device", "jax", "revision", "config_digest", "metrics_sha256"),
    *("matmul_precision", "float32_products"),
)
_NUMBERS = {
    *(shown.field for kind in kinds.KINDS.values() for shown in kind.columns),
    *("seed", "num_devices", "steps", "epochs", "fit_step", "num_params"),
    *("best_test_accuracy", "best_test_accuracy_top5"),
} - {"fit_epoch"}
# By the type of a field's default: the types that its value may have, and their name.
_TYPES = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a finite number"),
    str: ((str,), "a text"),
    dict: ((dict,), "a group of fields"),
}


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None. JSON's true and false are not."""
    is_number = type(value) in (int, float) and -LARGEST <= value <= LARGEST
    return float(value) if is_number else None


def printable(text: str) -> str:
    """`text` on one line, with a blank for every character that cannot be printed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def read_config(file: pathlib.Path) -> dict[str, Any]:
    """config.json. A field may be missing, because it may be younger than the run."""
    if not os.path.lexists(file):
        raise ValueError("no config.json beside its other files")
    config = _json_object(file)
    if not isinstance(config.get("row"), str) or type(config.get("seed")) is not int:
        raise ValueError("config.json is not that of a run: it has no row or no seed")
    kind = config.get("kind", "training")
    if not isinstance(kind, str) or kind not in experiments.KINDS:
        raise ValueError(f"config.json has an unknown kind: {kind!r}")
    for path, field in experiments.KINDS[kind].FIELDS.items():
        _check_field(config, path, field)
    return config


def _check_field(config: Mapping[str, Any], path: str, field: Field) -> None:
    *groups, name = path.split(".")
    group, place = config, ""
    for key in groups:
        place += f".{key}"
        group = group.get(key, {})
        _require(isinstance(group, dict), "config.json", place[1:], group, "a group of fields")
    if name not in group or type(field.default) not in _TYPES:
        return
    types, words = _TYPES[type(field.default)]
    value = group[name]
    is_right = type(value) in types
    if is_right and type(value) in (int, float):
        is_right = number(value) is not None
    _require(is_right, "config.json", path, value, words)


def read_result(file: pathlib.Path) -> dict[str, Any] | None:
    """result.json with its nested numbers in the form that `Run` uses; None if there is none.

    {"shifts": {"noise=1": {"accuracy": ...}}} becomes {"shifts.noise=1": ...}.
    """
    if not os.path.lexists(file):
        return None
    result = _json_object(file)
    if result.get("status") not in json_files.STATUSES:
        raise ValueError(f"result.json has status {result.get('status')!r}")
    for field in _TEXTS:
        value = result.get(field, "")
        _require(isinstance(value, str), file.name, field, value, "a text")
    _check_numbers(result)
    if not json_files.is_intact(result):
        raise ValueError(
            "result.json is damaged: its numbers do not match its field sha256, so one of them has "
            "changed"
        )
    shifts = result.pop("shifts", {})
    _require(isinstance(shifts, dict), file.name, "shifts", shifts, "an object")
    for name, measured in shifts.items():
        accuracy = measured.get("accuracy") if isinstance(measured, dict) else measured
        _check_number(f"shifts.{name}", accuracy)
        result[f"shifts.{printable(name)}"] = accuracy
    if "solutions" in result:
        result["solutions"] = _solutions(result)
    if result.get("drawing"):
        _check_drawing(result["drawing"])
    return result


def _check_numbers(fields: Mapping[str, Any]) -> None:
    for field in _NUMBERS & fields.keys():
        _check_number(field, fields[field])


def _check_number(field: str, value: Any) -> None:
    # nan and inf are written as null.
    is_number = value is None or type(value) in (int, float)
    _require(is_number, "result.json", field, value, "a number or null")


def _require(condition: bool, file: str, field: str, value: Any, words: str) -> None:
    if not condition:
        raise ValueError(f"{file} is damaged: {field} is {_short(value)}, not {words}")


def _solutions(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of each solution by its name; see `rethinking.experiments.linear`."""
    last = {}  # the last line of SGD from each start
    try:
        for line in result.get("sgd", []):
            last[line["start"]] = line["distance"]
        solutions = {printable(numbers["name"]): numbers for numbers in result["solutions"]}
        for name, numbers in solutions.items():
            distance = last.get(paper.SGD_STARTS.get(name))
            solutions[name] = numbers | {"sgd_distance": distance}
            _check_numbers(solutions[name])
    except (TypeError, KeyError) as error:
        raise ValueError(f"result.json has unreadable solutions: {error!r}") from error
    return solutions


def _check_drawing(drawing: Any) -> None:
    """Checks the points of `rethinking.experiments.expressivity`'s drawing."""
    try:
        thresholds = [place for place in drawing if not place["point"]]
        for place in drawing:
            values = [place["x"], place["output"], *place["units"]]
            is_whole = len(place["units"]) >= len(thresholds) and None not in map(number, values)
            _require(is_whole, "result.json", "drawing", place, "a point of a drawing")
    except (TypeError, KeyError) as error:
        raise ValueError(f"result.json has an unreadable drawing: {error!r}") from error


def read_metrics(file: pathlib.Path) -> tuple[list[dict[str, Any]], str]:
    """The lines of metrics.jsonl up to the first that cannot be read, and what is wrong with it.

    A last line without an end is left out: a process that is killed may leave one.
    """
    if not os.path.lexists(file):
        return [], ""
    *texts, rest = _bytes(file).split(b"\n")
    damage = f"the last line of {file.name} is cut short" if rest else ""
    try:
        # In one call, because then all lines share the memory of their keys.
        lines = json.loads((b"[" + b",".join(texts) + b"]").decode())
    except (ValueError, RecursionError):
        lines = []
    if len(lines) != len(texts) or not all(map(_is_line, lines)):
        lines, damage = _readable(texts)
        damage = f"{file.name} is damaged: {damage}"
    return lines, damage


def _readable(texts: list[bytes]) -> tuple[list[dict[str, Any]], str]:
    """The lines up to the first that is not an object, and the first one that is damaged."""
    lines, damage = [], ""
    for place, text in enumerate(texts, 1):
        try:
            line = json.loads(text.decode())
        except (ValueError, RecursionError):
            line = None
        if not _is_line(line):
            damage = damage or f"line {place} is {_short(text.decode(errors='replace'))}"
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines, damage


def _is_line(line: Any) -> bool:
    """Whether it is an object with numbers, true, false and null only."""
    return isinstance(line, dict) and _VALUES.issuperset(map(type, line.values()))


_VALUES = {int, float, bool, type(None)}


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _json_object(file: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(file).decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is not JSON (cut short?): {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    if _depth(value) > MOST_NESTED:
        raise ValueError(f"{file.name} is nested more than {MOST_NESTED} deep")
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = [one for one in inner if isinstance(one, dict | list)]
    return depth


def _bytes(file: pathlib.Path) -> bytes:
    if file.exists() and not file.is_file():
        raise ValueError(f"{file.name} is not a file")
    return file.read_bytes()
