"""Counts the hours for which slices cost money, in a file that outlives the watch."""

import fcntl
import hashlib
import json
import pathlib

from rethinking import paths
from rethinking.errors import InputError


class Meter:
    """Counts the time in which there may have been a slice, and the time that is left of the limit.

    In doubt it counts more. If there was a slice at one of two looks, or a request for one in
    between, it counts all the time between them.
    """

    def __init__(self, file: pathlib.Path, limit: float):
        """`limit` is in seconds. Raises InputError if another watch counts in this file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._limit = file, limit
        self._lock = open(file.with_suffix(".lock"), "a")  # noqa: SIM115  as long as the watch
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another watch of this slice and this run is running (it holds {file}). Look at "
                "its output, or end it first."
            ) from None
        self.used, self._last, self._costs = 0.0, None, False
        if file.exists():
            kept = json.loads(file.read_text())
            self.used, self._last, self._costs = kept["used"], kept["last"], kept["costs"]

    @property
    def left(self) -> float:
        """Seconds that are left of the limit."""
        return self._limit - self.used

    def note(self, now: float, costs: bool) -> None:
        """Notes at the time `now` (of time.time()) whether there may be a slice that costs."""
        if self._last is not None and (costs or self._costs):
            self.used += max(now - self._last, 0.0)
        self._last, self._costs = now, costs
        self._keep()

    def _keep(self) -> None:
        kept = {"used": self.used, "last": self._last, "costs": self._costs}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(kept))
        partial.rename(self._file)

    def forget(self) -> None:
        """Removes the file, because the runs are finished."""
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets another watch count in the file."""
        self._lock.close()


def default_file(*identity: str) -> pathlib.Path:
    """The file of a watch. `identity` names its slice and its runs."""
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    return paths.state() / "rethinking" / "slices" / f"{identity[0]}-{digest}.json"
