"""The lines of metrics.jsonl: whether they are all there, and what they come to."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from rethinking.runs import json_files

Line = dict[str, Any]
# The numbers that every line of a training run has. A loss that is not finite is null.
_NUMBERS = ("train_accuracy", "test_accuracy", "learning_rate", "seconds")
_OR_NULL = ("train_loss", "test_loss", "examples_per_second", "step_loss")


class Measured(NamedTuple):
    """The lines of metrics.jsonl when a checkpoint was made: how many, and their digest."""

    num_lines: int
    lines_sha256: str

    @classmethod
    def of(cls, lines: list[Line]) -> "Measured":
        """What a checkpoint that is made after these lines records of them."""
        return cls(len(lines), json_files.sha256(lines))

    def find_lost(self, lines: list[Line]) -> str | None:
        """What is wrong with `lines`, up to the first damaged one, if they are not those."""
        if len(lines) < self.num_lines:
            return f"of its first {self.num_lines} lines, only {len(lines)} can be read"
        if Measured.of(lines[: self.num_lines]) != self:
            return f"its first {self.num_lines} lines are not those that were written"
        return None


def find_lost_by_epochs(
    lines: list[Line], step: int, due: range, last_step: Callable[[int], int], is_optional: bool
) -> str | None:
    """What is wrong with the lines before a checkpoint that records nothing of them, if anything.

    The checkpoint, of an earlier version, was made after `step` steps.
    `due` are the epochs whose evaluations are due. The last of them may be missing if
    `is_optional`. A line of another epoch may only be the last.
    """
    missing = dict.fromkeys(due)
    for number, line in enumerate(lines, 1):
        problem = _problem(line, last_step)
        if problem is not None:
            return f"line {number} is damaged: {problem}"
        if line["step"] > step:
            break
        epoch = line["epoch"]
        if number > 1 and epoch <= lines[number - 2]["epoch"]:
            return f"line {number} is out of order"
        missing.pop(epoch, None)
        if epoch not in due and line["step"] < step:
            return f"line {number} is of epoch {epoch}, which has no evaluation"
    if missing and not (is_optional and list(missing) == [due[-1]]):
        return f"the evaluation of epoch {next(iter(missing))} is missing"
    return None


def summarize(lines: list[dict[str, Any]], fit_accuracy: float) -> dict[str, Any]:
    """The training fields of result.json, from the lines of metrics.jsonl.

    `fit_step` is the step at the end of the first epoch after which the training accuracy, in
    evaluation mode, is at least `fit_accuracy`; None if it never is. `examples_per_second` is the
    median over epochs.
    """
    last = lines[-1]
    fit_steps = [line["step"] for line in lines if (line["train_accuracy"] or 0) >= fit_accuracy]
    rates = [line["examples_per_second"] for line in lines]
    rates = [rate for rate in rates if rate is not None]
    fields = {
        "seconds": last["seconds"],
        "steps": last["step"],
        "epochs": last["epoch"],
        "fit_step": fit_steps[0] if fit_steps else None,
        "train_accuracy": last["train_accuracy"],
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in lines),
        "train_loss": last["train_loss"],
        "examples_per_second": statistics.median(rates) if rates else None,
    }
    for name, value in last.items():
        if name.endswith(("_top5", "_skipped")):
            fields[name] = value
    if "test_accuracy_top5" in last:
        fields["best_test_accuracy_top5"] = max(line["test_accuracy_top5"] for line in lines)
    return fields


def _problem(line: Line, last_step: Callable[[int], int]) -> str | None:
    """Why this is not a line of a training run, in words; None if it can be one."""
    for name in ("step", "epoch"):
        if type(line.get(name)) is not int or line[name] < 0:
            return f"{name} is not a whole number"
    if line["step"] != last_step(line["epoch"]):
        return f"epoch {line['epoch']} does not end with step {line['step']}"
    for name in _NUMBERS:
        if not json_files.is_number(line.get(name)):
            return f"{name} is not a number"
    for name in _OR_NULL:
        if line.get(name) is not None and not json_files.is_number(line[name]):
            return f"{name} is not a number"
    return None
