"""Checkpoints: the newest two states of a run. If one is damaged, the other is used."""

import contextlib
import gc
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from rethinking import distributed
from rethinking.errors import InputError
from rethinking.experiments.evaluations import Measured
from rethinking.runs.disk import quiet, require_space
from rethinking.training.state import TrainState, named

_LOG = logging.getLogger(__name__)
# What a checkpoint holds beside the state, if it is so old that it has no digest.
_BEFORE_DIGESTS = {"loss_sum"}


def _is_news(record: logging.LogRecord) -> bool:
    # Orbax's threads log the traceback of an error, which is raised as well.
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_news)


class Saved(NamedTuple):
    """The point that a run has reached."""

    step: int  # steps done
    state: TrainState
    loss_sum: float = 0.0  # over the steps since the last epoch ended
    seconds: float | None = None  # spent on the run; None in an old checkpoint without a digest
    measured: Measured | None = None  # the evaluations so far; None likewise


class _Unusable(Exception):
    """A checkpoint cannot be used; the message is the reason, on one line."""


class _LostMetrics(_Unusable):
    """The checkpoint is intact, but metrics.jsonl does not hold the evaluations before it."""


class Checkpoints:
    """The folder `checkpoints/` of a run directory, in Orbax's format."""

    def __init__(self, run_directory: epath.Path):
        self._path = (run_directory / "checkpoints").absolute()
        self._manager = self._open()
        # The number of evaluations before the newest checkpoint, if this process knows it.
        self._num_lines: int | None = None

    def _open(self) -> ocp.CheckpointManager:
        # Saving takes milliseconds at these sizes. A save in the foreground has ended when it
        # returns.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._path, options=options)

    def save(self, saved: Saved) -> None:
        """Saves what a run needs to continue from here, unless exactly this is saved already."""
        num_lines = saved.measured.num_lines if saved.measured else None
        # Here, because an error in the middle of a save makes Orbax's threads print tracebacks.
        require_space(self._path, sum(leaf.nbytes for leaf in jax.tree.leaves(saved.state)))
        if saved.step == self._manager.latest_step():
            if num_lines == self._num_lines:
                return
            # The run stopped before this step was evaluated. The older one lacks the line.
            self._manager.delete(saved.step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(saved.state),
            progress=ocp.args.JsonSave(_progress(saved)),
        )
        self._manager.save(saved.step, args=items)
        self._num_lines = num_lines

    def restore(
        self, state: TrainState, find_lost: Callable[[Saved], str | None] = lambda saved: None
    ) -> Saved:
        """The newest checkpoint that can be used, placed on the devices as `state` is.

        If there is no checkpoint, the result is step 0 with `state` itself. A checkpoint is
        unusable if it cannot be read, or if its values are not those that were saved. It is also
        unusable if `find_lost` says which evaluations before it are lost. This method then warns,
        moves it to `checkpoints.unreadable`, and uses the one before it. If no checkpoint is
        usable, it moves none and raises InputError.
        """
        unusable: dict[int, _Unusable] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            saved, reason = None, None
            try:
                saved = self._read(step, state)
                lost = find_lost(saved)
                if lost is not None:
                    raise _LostMetrics(lost)
            except _Unusable as error:
                reason = error
            # All processes ask, because they continue from the same checkpoint.
            if distributed.agreed(reason is not None):
                unusable[step] = reason or _Unusable("another process cannot use it")
                continue
            self._put_aside(unusable)
            self._num_lines = saved.measured.num_lines if saved.measured else None
            return saved
        if unusable:
            raise _refusal(self._path, unusable)
        return Saved(0, state, measured=Measured.of([]))

    def _read(self, step: int, state: TrainState) -> Saved:
        """The checkpoint of a step. Raises _Unusable if it is damaged or of another network."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        restored = None
        with _quiet_failures():
            try:
                reason = _difference(self._path / str(step) / "state", state)
                if reason is None:
                    restored = self._manager.restore(step, args=items)
            except Exception as error:  # Orbax's readers raise many kinds: JSON, TensorStore, OS.
                reason = _first_line(error)
            if reason is not None:
                gc.collect()  # TensorStore's reads that failed as well
        if reason is not None:
            raise _Unusable(reason)
        saved = _saved(step, restored.state, restored.progress)
        if saved is None:
            raise _Unusable("its values are not those that were saved")
        return saved

    def _put_aside(self, unusable: dict[int, _Unusable]) -> None:
        """Moves the checkpoints of these steps to `checkpoints.unreadable`."""
        if not unusable:
            return
        self.close()
        for step, reason in unusable.items():
            folder = self._path / str(step)
            _LOG.warning(
                "Checkpoint %s %s (%s). The run moves it to checkpoints.unreadable, and "
                "continues from an older one.",
                folder,
                "lacks evaluations" if isinstance(reason, _LostMetrics) else "is unreadable",
                reason,
            )
            if jax.process_index() == 0:
                aside = self._path.with_name("checkpoints.unreadable") / f"{step}-{time.time_ns()}"
                aside.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("put aside")
        self._manager = self._open()

    def close(self) -> None:
        """Ends Orbax's background threads."""
        self._manager.close()


def _progress(saved: Saved) -> dict[str, Any]:
    """What a checkpoint holds beside the state, with a digest of everything."""
    progress: dict[str, Any] = {"loss_sum": saved.loss_sum}
    if saved.seconds is not None and saved.measured is not None:
        progress |= {"seconds": saved.seconds} | saved.measured._asdict()
    return progress | {"sha256": _digest(saved.state, progress)}


def _saved(step: int, state: TrainState, progress: Any) -> Saved | None:
    """The contents of a checkpoint; None if its digest is not the one of these values."""
    if not isinstance(progress, dict) or int(state.step) != step:
        return None
    given = {name: value for name, value in progress.items() if name != "sha256"}
    if progress.keys() == _BEFORE_DIGESTS:
        if type(progress["loss_sum"]) is not float:
            return None
    elif progress.get("sha256") != _digest(state, given):
        return None
    measured = None
    if "num_lines" in given:
        measured = Measured(given["num_lines"], given["lines_sha256"])
    return Saved(step, state, given["loss_sum"], given.get("seconds"), measured)


def _digest(state: TrainState, progress: dict[str, Any]) -> str:
    """The SHA-256 of all values. It is the same in each process: all arrays are replicated."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for name, leaf in named(state).items():
        array = np.asarray(leaf)
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _difference(folder: epath.Path, state: TrainState) -> str | None:
    """How the arrays in `folder` differ from `state` in names, shapes and dtypes, if they do."""
    there = named(ocp.StandardCheckpointHandler().metadata(folder).tree)
    found = []
    for name, leaf in named(state).items():
        ours = f"{leaf.dtype}{list(leaf.shape)}"
        saved = there.pop(name, None)
        theirs = f"{saved.dtype}{list(saved.shape)}" if saved is not None else "missing"
        if ours != theirs:
            found.append(f"{name}: {theirs} there, {ours} now")
    found += [f"{name}: only there" for name in there]
    if not found:
        return None
    more = f"; and {len(found) - 1} more differences" if len(found) > 1 else ""
    return found[0] + more


def _refusal(path: epath.Path, unusable: dict[int, _Unusable]) -> InputError:
    """The error if no checkpoint can be used."""
    newest, reason = next(iter(unusable.items()))
    text = f"{path / str(newest)} cannot be read ({reason}), nor can an older checkpoint. "
    remedy = "If the network or the optimizer has changed, change it back."
    if any(isinstance(each, _LostMetrics) for each in unusable.values()):
        lost = next(each for each in unusable.values() if isinstance(each, _LostMetrics))
        text = f"{lost}. So no checkpoint in {path} can be continued. "
        remedy = "Put the whole file back if you have a copy."
    return InputError(f"{text}{remedy} To start again, choose another --workdir.")


@contextlib.contextmanager
def _quiet_failures() -> Iterator[None]:
    """Keeps Python from printing the errors of reads that nobody waits for any more."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        with quiet("asyncio"):
            yield
    finally:
        sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
    """The first line of an error's message; its type if it has no message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
