"""The training loop: trains leg by leg, evaluates after epochs, saves, and stops in time."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from rethinking import distributed, runs
from rethinking.experiments import evaluations
from rethinking.experiments.checkpoint import Checkpoints, Saved
from rethinking.experiments.inspection import NOTHING, Inspection
from rethinking.experiments.progress import Meter, Progress
from rethinking.experiments.trainer import Interrupted, Leg, Trainer
from rethinking.runs import json_files

_LOG = logging.getLogger(__name__)
# Several processes agree on when to save and to stop. That takes a moment, so in the middle of an
# epoch or of an evaluation they agree only before every 16th step or batch.
BETWEEN_AGREEMENTS = 16


class Loop:
    """A run under way: `step` steps and `epoch` whole epochs have led to the network `state`."""

    def __init__(
        self,
        config: ConfigDict,
        trainer: Trainer,
        run_directory: runs.RunDirectory,
        checkpoints: Checkpoints,
        start: float,
        deadline: float,
        inspection: Inspection = NOTHING,
    ):
        """Continues from the newest checkpoint, or starts with the trainer's initial state.

        `start` and `deadline` are values of time.monotonic(): when this process began the run, and
        when it must have stopped. Raises InputError if no checkpoint can be continued, or if
        metrics.jsonl lacks evaluations before each of them.
        """
        self.config = config
        self.trainer = trainer
        self.run_directory = run_directory
        self.checkpoints = checkpoints
        self.deadline = deadline
        self.inspection = inspection
        before = run_directory.metrics[-1:]
        saved = checkpoints.restore(trainer.initial, self._find_lost)
        self.step, self.state = saved.step, saved.state
        self.epoch = self._epochs(self.step)
        if saved.measured is not None:
            run_directory.keep(run_directory.metrics[: saved.measured.num_lines])
        else:
            run_directory.keep_metrics(self.step)
        if self.step:
            _LOG.info("Continuing after step %d, in epoch %d.", self.step, self.epoch + 1)
        spent = saved.seconds
        if spent is None:
            spent = _seconds(run_directory.metrics[-1:] or before)
        self.start = start - spent
        self.saved_at = time.monotonic()
        self.meter = Meter(saved.loss_sum)
        # Seconds that the last leg took, by whether it ended an epoch and was evaluated.
        self.leg_seconds = {True: 0.0, False: 0.0}

    def _epochs(self, step: int) -> int:
        """The number of whole epochs in `step` steps."""
        epoch = 0
        while self.trainer.last_step(epoch + 1) <= step:
            epoch += 1
        return epoch

    def _find_lost(self, saved: Saved) -> str | None:
        """Which evaluations before a checkpoint metrics.jsonl has lost, in words, if any."""
        problem = self._compare(saved)
        if problem is not None and not self.run_directory.writes:
            # This process may have read the file too early.
            self.run_directory.read_again()
            problem = self._compare(saved)
        return problem and f"{self.run_directory.path / 'metrics.jsonl'} is damaged: {problem}"

    def _compare(self, saved: Saved) -> str | None:
        lines = self.run_directory.metrics
        if saved.measured is not None:
            return saved.measured.find_lost(lines)
        epoch = self._epochs(saved.step)
        due = range(0, epoch + 1, self.config.eval_epochs)
        # The run may have stopped before the evaluation of its last epoch.
        is_optional = epoch == due[-1] and saved.step == self.trainer.last_step(epoch)
        if saved.step and saved.loss_sum == 0:  # the sum begins anew after an evaluation
            is_optional = False
        return evaluations.find_lost_by_epochs(
            lines, saved.step, due, self.trainer.last_step, is_optional
        )

    def run(self) -> str | None:
        """Trains to the end; returns "complete" or "diverged", or None if the run must stop first.

        The state is saved in each case.
        """
        folder = self.run_directory.path
        inspected = self.inspection.legs(self.trainer, self.state, self.step, folder)
        with (
            contextlib.closing(inspected) as legs,
            Progress(
                self.run_directory.path, self.config.row, self.config.max_epochs, self.epoch
            ) as progress,
        ):
            try:
                status = self._train(legs, progress)
            except Interrupted:
                _LOG.info(
                    "Stopped in an evaluation. The next run repeats it from its beginning, so its "
                    "time budget must be long enough for a whole evaluation."
                )
                status = None
        self._save()
        if status is None:
            _LOG.info("Stopped after step %d; the same command continues.", self.step)
        return status

    def _train(self, legs: Iterator[Leg], progress: Progress) -> str | None:
        """Trains and evaluates; returns the status, or None if the run must stop first."""
        if self.step == self.trainer.last_step(self.epoch):
            self._end_epoch(progress)  # The run may have stopped before this evaluation.
        while True:
            status = _status(self.config, self.run_directory.metrics)
            if status is not None:
                return status
            num_steps = self.trainer.leg_steps(self.step)
            ends_epoch = self.step + num_steps == self.trainer.last_step(self.epoch + 1)
            number = 0 if ends_epoch else self.step
            # A leg does not begin if it would end after the deadline. It is expected to take as
            # long as the last leg of the same kind.
            if self._must_stop(number, self.leg_seconds[ends_epoch]):
                return None
            due = time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
            if self._agreed(number, due):
                self._save()
            began = time.monotonic()
            self._count(next(legs), num_steps)
            if ends_epoch:
                self.epoch += 1
                self._end_epoch(progress)
            else:
                progress.show_step(self.step / self.trainer.last_step(1), self.meter)
            self.leg_seconds[ends_epoch] = time.monotonic() - began

    def _must_stop(self, number: int, seconds: float = 0.0) -> bool:
        """Whether SIGTERM has come or the deadline is within `seconds`. See `_agreed`."""
        late = time.monotonic() + seconds > self.deadline
        return self._agreed(number, late or distributed.sigterm_noticed())

    def _agreed(self, number: int, value: bool) -> bool:
        """Whether `value` is true in any process; the answer is the same in all of them.

        `number` counts steps or batches. Several processes ask each other only at some numbers; at
        the others the answer is False.
        """
        if jax.process_count() > 1 and number % BETWEEN_AGREEMENTS != 0:
            return False
        return distributed.agreed(value)

    def _count(self, leg: Leg, num_steps: int) -> None:
        self.state = leg.state
        self.step += num_steps
        self.meter.add(leg, num_steps, self.config.batch_size)

    def _end_epoch(self, progress: Progress) -> None:
        """Evaluates at the end of an epoch, or before the first, if that is due and not yet done.

        An evaluation is due every `config.eval_epochs` epochs, at the end of the run, and when the
        loss is not finite any more.
        """
        fields: dict[str, float | None] = {}
        last = False
        if self.epoch:
            loss = self._epoch_loss()
            fields["step_loss"] = loss
            last = self.epoch == self.config.max_epochs or not math.isfinite(loss)
        fields["examples_per_second"] = self.meter.rate()
        lines = self.run_directory.metrics
        is_done = bool(lines) and lines[-1]["epoch"] == self.epoch
        is_due = last or self.epoch % self.config.eval_epochs == 0
        if is_due and not is_done:
            # The slowest of several processes decides how long all of them wait.
            for name, seconds in self.meter.waits().items():
                fields[name] = distributed.largest(seconds)
            self._evaluate(fields, last)
            progress.show(self.run_directory.metrics[-1])
        self.meter = Meter()

    def _epoch_loss(self) -> float:
        """The mean loss of the steps of the epoch that has just ended."""
        return self.meter.loss_sum() / (self.step - self.trainer.last_step(self.epoch - 1))

    def _evaluate(self, fields: dict[str, float | None], last: bool) -> None:
        """Evaluates and appends a line to metrics.jsonl, which also holds `fields`.

        The run's last line is about the whole training set, not about a sample of it.
        """
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": self.epoch,
            "learning_rate": self.trainer.learning_rate(self.step),
        }
        values = self.trainer.evaluate(self.state, last, self._must_stop)
        if self.config.eval.num_train and not last and _ends_when_fit(self.config, values):
            values = self.trainer.evaluate(self.state, True, self._must_stop)
        line |= fields | values
        self.run_directory.append(line | {"seconds": time.monotonic() - self.start})

    def _save(self) -> None:
        self.run_directory.require_there()
        spent = time.monotonic() - self.start
        measured = evaluations.Measured.of(self.run_directory.metrics)
        self.checkpoints.save(Saved(self.step, self.state, self.meter.loss_sum(), spent, measured))
        self.saved_at = time.monotonic()


def _seconds(lines: list[dict[str, Any]]) -> float:
    """The seconds that a run had spent at the first of these lines; 0 if that cannot be read."""
    spent = lines[0].get("seconds") if lines else None
    return spent if json_files.is_number(spent) else 0.0


def _status(config: ConfigDict, lines: list[dict[str, Any]]) -> str | None:
    """How the run has ended, "complete" or "diverged"; None if it goes on."""
    last = lines[-1]
    losses = [last["train_loss"], last["test_loss"], last.get("step_loss", 0.0)]
    if None in losses:
        return "diverged"
    if _ends_when_fit(config, last) or last["epoch"] >= config.max_epochs:
        return "complete"
    return None


def _ends_when_fit(config: ConfigDict, line: dict[str, Any]) -> bool:
    """Whether the run stops because its training accuracy has reached `fit_accuracy`."""
    return config.stop_when_fit and line["train_accuracy"] >= config.fit_accuracy
