"""Checkpoints: the newest two states of a run. If one is damaged, the other is used."""

import logging
import time
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from rethinking.errors import InputError
from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)


class Saved(NamedTuple):
    """The point that a run has reached."""

    step: int  # steps done
    state: TrainState
    loss_sum: float = 0.0  # over the legs since the last epoch ended


class Checkpoints:
    """The folder `checkpoints/` of a run directory, in Orbax's format."""

    def __init__(self, run_directory: epath.Path):
        self._path = (run_directory / "checkpoints").absolute()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        # Saving takes milliseconds at these sizes. A save in the foreground has ended when it
        # returns.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._path, options=options)

    def save(self, saved: Saved) -> None:
        """Saves what a run needs to continue from here, unless this step is saved already."""
        if saved.step == self._manager.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(saved.state),
            progress=ocp.args.JsonSave({"loss_sum": saved.loss_sum}),
        )
        self._manager.save(saved.step, args=items)

    def restore(self, state: TrainState) -> Saved:
        """The newest checkpoint that can be read, placed on the devices as `state` is.

        If there is no checkpoint, the result is step 0 with `state` itself. A checkpoint that
        cannot be read is moved to `checkpoints.unreadable`, with a warning, and the one before it
        is used. If no checkpoint can be read, all stay where they are, and InputError is raised.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        unreadable = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
            except Exception as error:  # Orbax's readers raise many kinds: JSON, TensorStore, OS.
                unreadable[step] = _first_line(error)
            else:
                self._put_aside(unreadable)
                return Saved(step, restored.state, restored.progress["loss_sum"])
        if unreadable:
            newest, reason = next(iter(unreadable.items()))
            raise InputError(
                f"{self._path / str(newest)} cannot be read ({reason}), nor can an older "
                "checkpoint. If the network or the optimizer has changed, change it back. "
                "To start again, choose another --workdir."
            )
        return Saved(0, state)

    def _put_aside(self, unreadable: dict[int, str]) -> None:
        """Moves the checkpoints of these steps to `checkpoints.unreadable`."""
        if not unreadable:
            return
        self.close()
        for step, reason in unreadable.items():
            folder = self._path / str(step)
            _LOG.warning(
                "Checkpoint %s is unreadable (%s). It is put aside, and the one before it is used.",
                folder,
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


def _first_line(error: Exception) -> str:
    """The first line of an error's message; its type if it has no message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
