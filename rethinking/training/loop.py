"""One training run, from a config to a finished run directory."""

import contextlib
import itertools
import logging
import math
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from rethinking import distributed, runs
from rethinking.training import metrics, resident, streamed
from rethinking.training.checkpoint import Checkpoints, Saved
from rethinking.training.experiment import Experiment, Leg

_LOG = logging.getLogger(__name__)
# Several processes agree on when to save and to stop; not before every step, since that takes a moment.
STEPS_BETWEEN_AGREEMENTS = 16


def run(config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf) -> dict[str, Any] | None:
    """Trains as `config` says, continuing what the run directory holds; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first, or if the machine is about to be taken away (SIGTERM; only
    where data are streamed): the state is saved then, and the same call continues.
    Raises ConfigError for settings or data that cannot work, before any time is spent.
    """
    start = time.time()
    experiment = prepare(config)
    checkpoints = Checkpoints(run_directory.path)
    try:
        return _Training(config, run_directory, experiment, checkpoints, start, deadline).go_on()
    finally:
        checkpoints.close()


def prepare(config: ConfigDict) -> Experiment:
    """The experiment that `config` describes; raises ConfigError for settings or data that cannot work."""
    return (streamed if config.data.stream else resident).prepare(config)


class _Training:
    """A run under way: `step` steps are done, and `epoch` whole epochs."""

    def __init__(self, config, run_directory, experiment, checkpoints, start, deadline):
        self.config, self.run_directory, self.experiment = config, run_directory, experiment
        self.checkpoints, self.deadline = checkpoints, deadline
        self.step, self.state, loss_sum = checkpoints.restore(experiment.state)
        self.epoch = next(epoch for epoch in itertools.count() if experiment.last_step(epoch + 1) > self.step)
        run_directory.keep_metrics(self.step)
        if self.step:
            _LOG.info("Continuing after step %d, in epoch %d.", self.step, self.epoch + 1)
        spent = run_directory.metrics[-1]["seconds"] if run_directory.metrics else 0.0
        self.start, self.saved_at = start - spent, time.time()
        self.meter = metrics.Meter(loss_sum)
        self.lasted = {True: 0.0, False: 0.0}  # seconds of the last leg that ended an epoch, and of the last other one

    def go_on(self) -> dict[str, Any] | None:
        """Trains to the end, or until it must stop."""
        config, run_directory = self.config, self.run_directory
        # An epoch on the device cannot be left in the middle: there SIGTERM simply ends the process, if it is alone and
        # no sweep around it has taken notice of the signal.
        saves_first = self.experiment.streamed or jax.process_count() > 1
        legs = self.experiment.legs(self.state, self.step)
        with (
            contextlib.closing(legs),
            distributed.notice_sigterm() if saves_first else contextlib.nullcontext(),
            metrics.Progress(run_directory.path, config.row, config.max_epochs, self.epoch) as progress,
        ):
            if not run_directory.metrics:
                progress.show(self.measure({"examples_per_second": None}))
            while not (status := _status(config, run_directory.metrics)):
                ends_epoch = self.step + self.experiment.steps_per_leg == self.experiment.last_step(self.epoch + 1)
                stop, save = self.decide(ends_epoch)
                if stop or distributed.preempted(self.step):
                    break
                if save:
                    self.save()
                began = time.time()
                self.train(next(legs))
                if ends_epoch:
                    self.end_epoch(progress)
                else:
                    progress.show_step(self.step / self.experiment.last_step(1), self.meter)
                self.lasted[ends_epoch] = time.time() - began
        self.save()
        if not status:
            _LOG.info("Stopped after step %d; the same command continues.", self.step)
            return None
        measured = metrics.summarize(run_directory.metrics, config.fit_accuracy)
        measured |= self.experiment.measure_at_end(self.state)
        return run_directory.finish(
            runs.provenance(config) | {"status": status, "num_params": self.experiment.num_params} | measured
        )

    def decide(self, ends_epoch: bool) -> tuple[bool, bool]:
        """Whether to stop here, and whether to save: the same on all processes."""
        now = time.time()
        # A leg that would end after the deadline is not begun: it is taken to last as long as the one before.
        late = now + self.lasted[ends_epoch] > self.deadline
        due = now - self.saved_at >= self.config.checkpoint_seconds
        if jax.process_count() > 1 and not (ends_epoch or self.step % STEPS_BETWEEN_AGREEMENTS == 0):
            return False, False
        return distributed.agreed(late), distributed.agreed(due)

    def train(self, leg: Leg) -> None:
        """Counts a leg that has been trained."""
        self.state = leg.state
        self.step += self.experiment.steps_per_leg
        self.meter.add(leg.loss, self.experiment.steps_per_leg * self.config.batch_size)

    def end_epoch(self, progress: metrics.Progress) -> None:
        """Measures if it is time to, or if the loss is no number any more."""
        legs = (self.step - self.experiment.last_step(self.epoch)) / self.experiment.steps_per_leg
        loss = self.meter.loss_sum() / legs
        self.epoch += 1
        last = self.epoch == self.config.max_epochs or not math.isfinite(loss)
        if last or self.epoch % self.config.eval_epochs == 0:
            progress.show(self.measure({"step_loss": loss, "examples_per_second": self.meter.rate()}, last))
        self.meter = metrics.Meter()

    def measure(self, trained: dict[str, float | None], last: bool = False) -> dict[str, Any]:
        """Adds a line to metrics.jsonl, and returns it; the run's last one is of the whole training set."""
        learning_rate = float(self.experiment.learning_rate(self.step))
        line = {"step": self.step, "epoch": self.epoch, "learning_rate": learning_rate}
        measured = self.experiment.evaluate(self.state, last)
        if self.config.eval.num_train and not last and _fitted(self.config, measured):
            measured = self.experiment.evaluate(self.state, True)
        line |= trained | measured
        self.run_directory.append(line | {"seconds": time.time() - self.start})
        return self.run_directory.metrics[-1]

    def save(self) -> None:
        """Writes a checkpoint."""
        self.checkpoints.save(Saved(self.step, self.state, self.meter.loss_sum()))
        self.saved_at = time.time()


def _status(config: ConfigDict, lines: list[dict[str, Any]]) -> str:
    """How the run has ended: "complete", "diverged", or "" if it goes on."""
    last = lines[-1]
    if any(last[name] is None for name in ("train_loss", "test_loss")) or last.get("step_loss", 0.0) is None:
        return "diverged"
    return "complete" if _fitted(config, last) or last["epoch"] >= config.max_epochs else ""


def _fitted(config: ConfigDict, measured: dict[str, Any]) -> bool:
    """Whether that is what the run was to stop at."""
    return config.stop_when_fit and measured["train_accuracy"] >= config.fit_accuracy
