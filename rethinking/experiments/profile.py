"""A profile of some training steps and an evaluation: a trace, and a table of its kernels."""

import logging
import pathlib
import tempfile

import jax
from etils import epath

from rethinking.experiments import kernel_table
from rethinking.experiments.trainer import Interrupted, Trainer
from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)
# Streamed sets are evaluated batch by batch. So many batches are enough for a profile.
_BATCHES = 2
TABLE = "profile.txt"


def record(
    trainer: Trainer, state: TrainState, step: int, num_steps: int, folder: epath.Path
) -> None:
    """Profiles `num_steps` steps from `state`, and an evaluation, on copies: the run goes on as is.

    The first process writes the trace into `folder`, where TensorBoard's plugin and XProf look for
    it: plugins/profile/TIME/HOST.xplane.pb. Perfetto opens HOST.trace.json.gz beside it. The table
    is in `folder`/profile.txt, and is logged.
    """
    _work(trainer, state, step, num_steps)  # compiles what is not compiled yet
    if jax.process_index():
        _work(trainer, state, step, num_steps)
        return
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # thousands of calls a step, which hide the rest
    with tempfile.TemporaryDirectory() as name:
        with jax.profiler.trace(name, profiler_options=options):
            _work(trainer, state, step, num_steps)
        traces = [file for file in pathlib.Path(name).rglob("*") if file.is_file()]
        table = kernel_table.make(max(traces, key=lambda file: file.suffix == ".pb"))
        for file in traces:
            copy = folder / file.relative_to(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (folder / TABLE).write_text(f"{table}\n")
    _LOG.info("Profile of %d steps and an evaluation, in %s:\n%s", num_steps, folder, table)


def _work(trainer: Trainer, state: TrainState, step: int, num_steps: int) -> None:
    """The steps and the evaluation that are profiled."""

    def stop(batch: int) -> bool:
        return batch >= _BATCHES

    trainer.rehearse(state, step, num_steps)
    try:
        trainer.evaluate_split(state, trainer.test, stop)
    except Interrupted:
        return
