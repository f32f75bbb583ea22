"""What a training run shows while it runs, and what it comes to in the end."""

import pathlib
import statistics
import sys
import time
from typing import Any

import tensorboardX
import tqdm

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A bar on the terminal, or now and then a line where there is none; and TensorBoard files. A context manager."""

    def __init__(self, run_directory: pathlib.Path, title: str, max_epochs: int, epoch: int):
        self._title, self._max_epochs = title, max_epochs
        self._writer = tensorboardX.SummaryWriter(str(run_directory), purge_step=None)
        self._terminal = sys.stderr.isatty()
        self._printed_at = 0.0
        self._bar = tqdm.tqdm(
            total=max_epochs, initial=epoch, desc=title, unit="epoch", disable=not self._terminal, dynamic_ncols=True
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        self._writer.close()

    def show(self, line: dict[str, Any]) -> None:
        """Reports one line of metrics.jsonl."""
        for name, value in line.items():
            if value is not None and name not in ("step", "epoch"):
                self._writer.add_scalar(name, value, line["step"])
        loss, rate = _number(line["train_loss"], ".4f"), _number(line["examples_per_second"], ",.0f")
        train, test = (_number(line[f"{split}_accuracy"], ".2%") for split in ("train", "test"))
        text = f"loss {loss}, train {train}, test {test}, {rate} images/s"
        if self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(line["epoch"] - self._bar.n)
        elif time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES or line["epoch"] == self._max_epochs:
            self._printed_at = time.monotonic()
            left = line["seconds"] / line["epoch"] * (self._max_epochs - line["epoch"]) if line["epoch"] else None
            print(f"{self._title}: epoch {line['epoch']}/{self._max_epochs}, {text}, {_number(left, '.0f')} s left",
                  file=sys.stderr, flush=True)


def summarize(lines: list[dict[str, Any]], fit_accuracy: float) -> dict[str, Any]:
    """The training fields of result.json from the lines of metrics.jsonl.

    fit_step is the step at the end of the first epoch after which training accuracy, in evaluation mode, is at least
    `fit_accuracy`; None if it never is. examples_per_second is the median over epochs.
    """
    last = lines[-1]
    rates = [line["examples_per_second"] for line in lines if line["examples_per_second"] is not None]
    return {
        "seconds": last["seconds"],
        "steps": last["step"],
        "epochs": last["epoch"],
        "fit_step": next((line["step"] for line in lines if (line["train_accuracy"] or 0) >= fit_accuracy), None),
        "train_accuracy": last["train_accuracy"],
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in lines),
        "train_loss": last["train_loss"],
        "examples_per_second": statistics.median(rates) if rates else None,
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
