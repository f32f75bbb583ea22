"""Checkpoints: the newest two states of a run, by step; a damaged one is passed over for the one before it."""

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
    """Where a run stands."""

    step: int  # steps taken
    state: TrainState
    loss_sum: float = 0.0  # of the legs since the last epoch's end


class Checkpoints:
    """The folder `checkpoints/` of a run directory (Orbax)."""

    def __init__(self, run_directory: epath.Path):
        self._path = (run_directory / "checkpoints").absolute()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        # Saving takes milliseconds at these sizes; in the foreground, a returned save is a finished one.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._path, options=options)

    def save(self, saved: Saved) -> None:
        """Keeps what is needed to go on from here."""
        if saved.step != self._manager.latest_step():
            self._manager.save(
                saved.step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(saved.state),
                    progress=ocp.args.JsonSave({"loss_sum": saved.loss_sum}),
                ),
            )

    def restore(self, state: TrainState) -> Saved:
        """The newest that can be read, placed as `state` is; step 0 and `state` itself if there is none.

        One that cannot be read is put aside, in `checkpoints.unreadable`, with a warning, and the one before it taken.
        Raises InputError, and leaves everything as it is, if there are some but none can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        unreadable = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=arguments)
            except (
                Exception
            ) as error:  # Orbax raises whatever its readers do: JSON, TensorStore, OS, value errors
                unreadable[step] = (
                    str(error).strip().splitlines()[0]
                    if str(error).strip()
                    else type(error).__name__
                )
            else:
                self._put_aside(unreadable)
                return Saved(step, restored.state, restored.progress["loss_sum"])
        if unreadable:
            newest, reason = next(iter(unreadable.items()))
            raise InputError(
                f"{self._path / str(newest)} cannot be read ({reason}), nor is there one before it that "
                "can. If the network or the optimizer was changed since, change it back; to start "
                "again, choose another --workdir."
            )
        return Saved(0, state)

    def _put_aside(self, unreadable: dict[int, str]) -> None:
        if not unreadable:
            return
        self.close()
        for step, reason in unreadable.items():
            folder = self._path / str(step)
            _LOG.warning(
                "Checkpoint %s is unreadable (%s): put aside; falling back to the one before.",
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
