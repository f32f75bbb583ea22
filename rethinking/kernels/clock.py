"""The time that each step of a solve takes."""

import dataclasses
import time

import jax


@dataclasses.dataclass(frozen=True)
class Seconds:
    """The seconds of each step of a solve, and of compilation, which counts for no other step."""

    gram: float
    factor: float
    solve: float
    compile: float


class Clock:
    """Adds up the seconds of each step, between entering it and leaving it."""

    def __init__(self):
        self._spent = {field.name: 0.0 for field in dataclasses.fields(Seconds)}

    def __enter__(self) -> "Clock":
        self._last = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._note)

    def lap(self, step: str) -> None:
        """Counts the time since the last lap for `step`."""
        now = time.perf_counter()
        self._spent[step] += now - self._last
        self._last = now

    @property
    def seconds(self) -> Seconds:
        """The seconds counted so far."""
        return Seconds(**self._spent)

    def _note(self, event: str, duration: float, **more: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self._spent["compile"] += duration
            self._last += duration
