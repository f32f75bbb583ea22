"""How long the devices of a streamed run have nothing to do, because no batch is ready."""

import concurrent.futures
import time
from collections.abc import Iterator
from typing import TypeVar

import jax

BatchT = TypeVar("BatchT")


class Waiting:
    """Counts the seconds between the end of a step and the arrival of the next batch.

    The program asks for a batch while the devices still compute. Only the time after their last
    step counts. A thread notes when that ends.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._ended: concurrent.futures.Future | None = None

    def timed(self, batches: Iterator[BatchT]) -> Iterator[BatchT]:
        """Yields the batches, and counts the time for which the devices wait for them."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._seconds += max(0.0, time.monotonic() - max(asked, self._idle_since()))
            yield batch

    def follow(self, loss: jax.Array) -> None:
        """Notes that the devices now compute a step with this `loss`."""
        self._ended = self._thread.submit(_end, loss)

    def take(self) -> float:
        """The seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Ends the thread, without waiting for the devices."""
        self._thread.shutdown(wait=False)

    def _idle_since(self) -> float:
        """When the devices ended their last step; infinity if they still compute."""
        if self._ended is None:  # no step yet
            return 0.0
        return self._ended.result() if self._ended.done() else float("inf")


def _end(loss: jax.Array) -> float:
    jax.block_until_ready(loss)
    return time.monotonic()
