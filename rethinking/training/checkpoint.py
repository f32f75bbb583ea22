"""Checkpoints: the newest two training states, by epoch; a damaged one is passed over for the one before it."""

import logging
import pathlib
import shutil

import jax
import orbax.checkpoint as ocp

from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)


class Checkpoints:
    """The folder `checkpoints/` of a run directory (Orbax)."""

    def __init__(self, run_directory: pathlib.Path):
        self._path = (run_directory / "checkpoints").absolute()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        # Saving takes milliseconds at these sizes; in the foreground, a returned save is a finished one.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._path, options=options)

    def save(self, epoch: int, state: TrainState) -> None:
        """Keeps `state` as it is after `epoch`."""
        if epoch != self._manager.latest_step():
            self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore(self, state: TrainState) -> tuple[int, TrainState]:
        """The newest readable (epoch, state), placed as `state` is; (0, state) itself if there is none.

        A checkpoint that cannot be read is removed with a warning, and the one before it is taken.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                return epoch, self._manager.restore(epoch, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Orbax raises whatever its readers do: JSON, TensorStore, OS, value errors
                folder = self._path / str(epoch)
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                _LOG.warning("Checkpoint %s is unreadable (%s): removed; falling back to the one before.",
                                folder, reason)
                self.close()
                shutil.rmtree(folder)
                self._manager = self._open()
        return 0, state

    def close(self) -> None:
        """Ends Orbax's background threads."""
        self._manager.close()
