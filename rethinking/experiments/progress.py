"""What a training run shows while it runs, and what it comes to in the end."""

import statistics
import sys
import time
from typing import Any

import jax
import tqdm
from etils import epath

from rethinking.experiments.event_file import EventFile

SECONDS_BETWEEN_LINES = 5.0


class Meter:
    """The loss and the speed of training since an epoch began."""

    def __init__(self, loss_sum: float = 0.0):
        """`loss_sum`: that of a meter which had seen the epoch's first legs, when the run was interrupted."""
        self._losses: list[float | jax.Array] = [loss_sum]
        self._images, self._start = 0, time.time()

    def add(self, loss: jax.Array, num_images: int) -> None:
        """Counts a leg, and waits for the one before it: the program stays a single leg ahead of the device."""
        jax.block_until_ready(self._losses[-1])
        self._losses.append(loss)
        self._images += num_images

    def loss_sum(self) -> float:
        """The sum of the legs' losses; waits for the last one."""
        self._losses = [sum(map(float, self._losses))]
        return self._losses[0]

    def rate(self) -> float | None:
        """Images per second; None if it has seen none itself."""
        return self._images / (time.time() - self._start) if self._images else None


class Progress:
    """A bar on the terminal, or now and then a line where there is none; and TensorBoard files. A context manager.

    Only the first of several processes shows and writes anything.
    """

    def __init__(self, run_directory: epath.Path, title: str, max_epochs: int, epoch: int):
        self._title, self._max_epochs = title, max_epochs
        self._first = jax.process_index() == 0
        self._events = EventFile(run_directory) if self._first else None
        self._terminal = self._first and sys.stderr.isatty()
        self._printed_at = 0.0
        self._bar = tqdm.tqdm(
            total=max_epochs,
            initial=epoch,
            desc=title,
            unit="epoch",
            disable=not self._terminal,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def show(self, line: dict[str, Any]) -> None:
        """Reports one line of metrics.jsonl."""
        if self._events:
            scalars = {}
            for name, value in line.items():
                if value is not None and name not in ("step", "epoch"):
                    scalars[name] = value
            self._events.add(line["step"], scalars)
        loss = _number(line["train_loss"], ".4f")
        rate = _number(line["examples_per_second"], ",.0f")
        train, test = (_number(line[f"{split}_accuracy"], ".2%") for split in ("train", "test"))
        left = (
            line["seconds"] / line["epoch"] * (self._max_epochs - line["epoch"])
            if line["epoch"]
            else None
        )
        self._report(
            line["epoch"],
            f"loss {loss}, train {train}, test {test}, {rate} images/s",
            f", {_number(left, '.0f')} s left",
            line["epoch"] == self._max_epochs,
        )

    def show_step(self, epochs: float, meter: Meter) -> None:
        """Reports, now and then, how an epoch goes; `epochs` are over, the part of this one included."""
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES and self._first:
            self._report(round(epochs, 2), f"{meter.rate():,.0f} images/s")

    def _report(self, epochs: float | int, text: str, left: str = "", always: bool = False) -> None:
        late = time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES
        if not self._first or not (always or late or self._terminal):
            return
        self._printed_at = time.monotonic()
        if self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(epochs - self._bar.n)
        else:
            print(
                f"{self._title}: epoch {epochs}/{self._max_epochs}, {text}{left}",
                file=sys.stderr,
                flush=True,
            )


def summarize(lines: list[dict[str, Any]], fit_accuracy: float) -> dict[str, Any]:
    """The training fields of result.json from the lines of metrics.jsonl.

    fit_step is the step at the end of the first epoch after which training accuracy, in evaluation mode, is at least
    `fit_accuracy`; None if it never is. examples_per_second is the median over epochs.
    """
    last = lines[-1]
    rates = [
        line["examples_per_second"] for line in lines if line["examples_per_second"] is not None
    ]
    return (
        {
            "seconds": last["seconds"],
            "steps": last["step"],
            "epochs": last["epoch"],
            "fit_step": next(
                (line["step"] for line in lines if (line["train_accuracy"] or 0) >= fit_accuracy),
                None,
            ),
            "train_accuracy": last["train_accuracy"],
            "test_accuracy": last["test_accuracy"],
            "best_test_accuracy": max(line["test_accuracy"] for line in lines),
            "train_loss": last["train_loss"],
            "examples_per_second": statistics.median(rates) if rates else None,
        }
        | {name: value for name, value in last.items() if name.endswith(("_top5", "_skipped"))}
        | (
            {"best_test_accuracy_top5": max(line["test_accuracy_top5"] for line in lines)}
            if "test_accuracy_top5" in last
            else {}
        )
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
