"""One training run, from a config to a finished run directory."""

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from rethinking import distributed, runs
from rethinking.experiments import resident, streamed
from rethinking.experiments.checkpoint import Checkpoints, Saved
from rethinking.experiments.progress import Meter, Progress, summarize
from rethinking.experiments.trainer import Experiment, Interrupted, Leg

_LOG = logging.getLogger(__name__)
# Several processes agree on when to save and to stop; not before every step or batch, since that takes a moment.
BETWEEN_AGREEMENTS = 16


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Trains as `config` says, continuing what the run directory holds; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first, or if the machine is about to be taken away (SIGTERM; only
    where data are streamed): the state is saved then, and the same call continues.
    Raises InputError for settings or data that cannot work, before any time is spent.
    """
    start = time.time()
    # An epoch on the device cannot be left in the middle: there SIGTERM simply ends the process, if it is alone and
    # no sweep around it has taken notice of the signal.
    with distributed.notice_sigterm() if config.data.stream else contextlib.nullcontext():
        experiment = prepare(config)
        checkpoints = Checkpoints(run_directory.path)
        try:
            return _Training(
                config, run_directory, experiment, checkpoints, start, deadline
            ).go_on()
        finally:
            checkpoints.close()


def prepare(config: ConfigDict) -> Experiment:
    """The experiment that `config` describes; raises InputError for settings or data that cannot work."""
    return (streamed if config.data.stream else resident).prepare(config)


class _Training:
    """A run under way: `step` steps are done, and `epoch` whole epochs."""

    def __init__(self, config, run_directory, experiment, checkpoints, start, deadline):
        self.config, self.run_directory, self.experiment = config, run_directory, experiment
        self.checkpoints, self.deadline = checkpoints, deadline
        self.step, self.state, loss_sum = checkpoints.restore(experiment.state)
        self.epoch = next(
            epoch for epoch in itertools.count() if experiment.last_step(epoch + 1) > self.step
        )
        run_directory.keep_metrics(self.step)
        if self.step:
            _LOG.info("Continuing after step %d, in epoch %d.", self.step, self.epoch + 1)
        spent = run_directory.metrics[-1]["seconds"] if run_directory.metrics else 0.0
        self.start, self.saved_at = start - spent, time.time()
        self.meter = Meter(loss_sum)
        self.lasted = {
            True: 0.0,
            False: 0.0,
        }  # seconds of the last leg that ended an epoch, and of the last other one

    def go_on(self) -> dict[str, Any] | None:
        """Trains to the end, or until it must stop."""
        config, run_directory = self.config, self.run_directory
        with (
            contextlib.closing(self.experiment.legs(self.state, self.step)) as legs,
            Progress(run_directory.path, config.row, config.max_epochs, self.epoch) as progress,
        ):
            try:
                status = self.advance(legs, progress)
            except Interrupted:
                _LOG.info(
                    "An evaluation was given up. It begins anew, and takes its time in one piece."
                )
                status = ""
        self.save()
        if not status:
            _LOG.info("Stopped after step %d; the same command continues.", self.step)
            return None
        measured = summarize(run_directory.metrics, config.fit_accuracy)
        measured |= self.experiment.measure_at_end(self.state)
        return {"status": status, "num_params": self.experiment.num_params} | measured

    def advance(self, legs: Iterator[Leg], progress: Progress) -> str:
        """Trains and measures; returns how the run has ended, "" if it must stop first."""
        if self.step == self.experiment.last_step(self.epoch):
            self.measure_epoch(progress)  # unless it was before the run stopped
        while not (status := _status(self.config, self.run_directory.metrics)):
            ends_epoch = self.step + self.experiment.steps_per_leg == self.experiment.last_step(
                self.epoch + 1
            )
            number = 0 if ends_epoch else self.step
            # A leg that would end after the deadline is not begun: it is taken to last as long as the one before.
            if self.must_stop(number, self.lasted[ends_epoch]):
                break
            if self.all_agree(
                number, time.time() - self.saved_at >= self.config.checkpoint_seconds
            ):
                self.save()
            began = time.time()
            self.train(next(legs))
            if ends_epoch:
                self.epoch += 1
                self.measure_epoch(progress)
            else:
                progress.show_step(self.step / self.experiment.last_step(1), self.meter)
            self.lasted[ends_epoch] = time.time() - began
        return status

    def must_stop(self, number: int, seconds: float = 0.0) -> bool:
        """Whether time would be up in so many seconds, or SIGTERM has come; for `number` see `all_agree`."""
        return self.all_agree(
            number, time.time() + seconds > self.deadline or distributed.sigterm_noticed()
        )

    def all_agree(self, number: int, value: bool) -> bool:
        """Whether `value` is true on any process: the same on all. Several ask each other at some numbers only."""
        return (
            distributed.agreed(value)
            if jax.process_count() == 1 or number % BETWEEN_AGREEMENTS == 0
            else False
        )

    def train(self, leg: Leg) -> None:
        """Counts a leg that has been trained."""
        self.state = leg.state
        self.step += self.experiment.steps_per_leg
        self.meter.add(leg.loss, self.experiment.steps_per_leg * self.config.batch_size)

    def measure_epoch(self, progress: Progress) -> None:
        """Measures, at the end of an epoch or before the first, if it is time to and has not been done.

        It is time to, too, if the loss is no number any more.
        """
        trained, last, lines = {}, False, self.run_directory.metrics
        if self.epoch:
            legs = (
                self.step - self.experiment.last_step(self.epoch - 1)
            ) / self.experiment.steps_per_leg
            trained["step_loss"] = loss = self.meter.loss_sum() / legs
            last = self.epoch == self.config.max_epochs or not math.isfinite(loss)
        trained["examples_per_second"] = self.meter.rate()
        if (last or self.epoch % self.config.eval_epochs == 0) and not (
            lines and lines[-1]["epoch"] == self.epoch
        ):
            progress.show(self.measure(trained, last))
        self.meter = Meter()

    def measure(self, trained: dict[str, float | None], last: bool = False) -> dict[str, Any]:
        """Adds a line to metrics.jsonl, and returns it; the run's last one is of the whole training set."""
        learning_rate = float(self.experiment.learning_rate(self.step))
        line = {"step": self.step, "epoch": self.epoch, "learning_rate": learning_rate}
        measured = self.experiment.evaluate(self.state, last, self.must_stop)
        if self.config.eval.num_train and not last and _fitted(self.config, measured):
            measured = self.experiment.evaluate(self.state, True, self.must_stop)
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
    if (
        any(last[name] is None for name in ("train_loss", "test_loss"))
        or last.get("step_loss", 0.0) is None
    ):
        return "diverged"
    return "complete" if _fitted(config, last) or last["epoch"] >= config.max_epochs else ""


def _fitted(config: ConfigDict, measured: dict[str, Any]) -> bool:
    """Whether that is what the run was to stop at."""
    return config.stop_when_fit and measured["train_accuracy"] >= config.fit_accuracy
