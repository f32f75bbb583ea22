"""What a training run shows while it runs, on the terminal and in TensorBoard."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import psutil
import tqdm
from etils import epath

from rethinking.experiments.trainer import Leg

SECONDS_BETWEEN_LINES = 5.0


class Meter:
    """The loss and the speed of training since the epoch began."""

    def __init__(self, loss_sum: float = 0.0):
        """A continued run passes the `loss_sum` of the epoch's steps before it was interrupted."""
        self._losses: list[tuple[float | jax.Array, int]] = [(loss_sum, 1)]
        self._examples = 0
        self._waited: float | None = None
        self._start = time.monotonic()

    def add(self, leg: Leg, num_steps: int, batch_size: int) -> None:
        """Counts a leg of `num_steps` steps, and waits for the one before it.

        So the program runs only one leg ahead of the devices.
        """
        jax.block_until_ready(self._losses[-1])
        self._losses.append((leg.loss, num_steps))
        self._examples += num_steps * batch_size
        if leg.waited is not None:
            self._waited = (self._waited or 0.0) + leg.waited

    def loss_sum(self) -> float:
        """The sum of the steps' losses; waits for the last one."""
        total = sum(float(loss) * num_steps for loss, num_steps in self._losses)
        self._losses = [(total, 1)]
        return total

    def rate(self) -> float | None:
        """Examples per second; None if this meter has counted no leg."""
        if not self._examples:
            return None
        return self._examples / (time.monotonic() - self._start)

    def waits(self) -> dict[str, float]:
        """The epoch's seconds, and those of them in which the devices waited for images.

        It is empty if this meter has counted no leg, or if the devices hold all images.
        """
        if self._waited is None:
            return {}
        return {
            "epoch_seconds": time.monotonic() - self._start,
            "input_wait_seconds": self._waited,
        }


@contextlib.contextmanager
def _without_pytorch() -> Iterator[None]:
    """Inside, PyTorch counts as not installed, unless it is loaded already.

    tensorboardX imports it, and needs it for PyTorch's own tensors alone. That takes seconds, and
    on a loaded machine a minute, in which a run cannot answer SIGTERM.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None
    try:
        yield
    finally:
        del sys.modules["torch"]


class Events:
    """The file of a run directory that TensorBoard reads. The first line makes it.

    tensorboardX's own SummaryWriter writes in a thread. If that thread fails, because the disk is
    full, the next lines wait for it without end.
    """

    def __init__(self, run_directory: epath.Path):
        self._folder = str(run_directory)
        self._writer = None

    def write(self, line: dict[str, Any]) -> None:
        """Writes the numbers of a line of metrics.jsonl."""
        with _without_pytorch():
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            event_file_writer.directory_check(self._folder)
            self._writer = event_file_writer.EventsWriter(f"{self._folder}/events")
        for name, value in line.items():
            if value is not None and name not in ("step", "epoch"):
                scalar = summary.scalar(name, value)
                self._writer.write_event(
                    Event(wall_time=time.time(), step=line["step"], summary=scalar)
                )
        self._writer.flush()

    def close(self) -> None:
        """Closes the file. What a full disk does not take is lost."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


class Progress:
    """A bar on the terminal, or lines where there is no terminal; and TensorBoard files.

    A context manager. Only the first of several processes shows and writes anything.
    """

    def __init__(self, run_directory: epath.Path, title: str, max_epochs: int, epoch: int):
        self._title, self._max_epochs = title, max_epochs
        self._first = jax.process_index() == 0
        self._events = Events(run_directory)
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
        self._events.close()

    def show(self, line: dict[str, Any]) -> None:
        """Reports one line of metrics.jsonl."""
        if self._first:
            self._events.write(line | memory())
        loss = _number(line["train_loss"], ".4f")
        train = _number(line["train_accuracy"], ".2%")
        test = _number(line["test_accuracy"], ".2%")
        rate = _number(line["examples_per_second"], ",.0f")
        seconds_left = None
        if line["epoch"]:
            epochs_left = self._max_epochs - line["epoch"]
            seconds_left = line["seconds"] / line["epoch"] * epochs_left
        self._report(
            line["epoch"],
            f"loss {loss}, train {train}, test {test}, {rate} examples/s{_waited(line)}",
            f", {_number(seconds_left, '.0f')} s left",
            line["epoch"] == self._max_epochs,
        )

    def show_step(self, epochs: float, meter: Meter) -> None:
        """Reports the speed within an epoch, every few seconds; `epochs` is a fraction."""
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES and self._first:
            text = f"{meter.rate():,.0f} examples/s{_waited(meter.waits())}"
            self._report(round(epochs, 2), text)

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


def _waited(fields: dict[str, Any]) -> str:
    """How long an epoch's steps waited for images, in words; "" where they wait for none."""
    if "input_wait_seconds" not in fields:
        return ""
    waited, seconds = fields["input_wait_seconds"], fields["epoch_seconds"]
    return f", {waited:.1f} of {seconds:.1f} s waiting for images"


def memory() -> dict[str, float]:
    """Gigabytes of memory: of this process, and the peak of its fullest device if that is known."""
    found = {"host_memory_gb": psutil.Process().memory_info().rss / 1e9}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [values["peak_bytes_in_use"] for values in stats if "peak_bytes_in_use" in values]
    if peaks:
        found["device_memory_gb"] = max(peaks) / 1e9
    return found


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
