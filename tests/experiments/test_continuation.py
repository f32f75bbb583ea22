"""Resident runs that are stopped, killed or damaged end as if nothing had happened."""

import os
import random
import signal
import subprocess
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rethinking import distributed, experiments, runs
from rethinking.errors import InputError
from rethinking.experiments.inspection import Inspection
from rethinking.training import steps
from tests.experiments.networks import Changing
from tests.experiments.trained import (
    ROOT,
    assert_same_run,
    command,
    final_state,
    kill,
    lines,
    quickstart,
    saved_steps,
    untimed,
)

# TensorStore's own warning, about reads that fail. It may come in a later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STEPS_PER_EPOCH = 1437 // 32
KILLED = (
    "--config=configs/quickstart.py:corrupt=0.5",
    "--config.max_epochs=30",
    "--config.checkpoint_seconds=0",
    "--config.num_devices=1",
    "--config.augment.flip=true",
    "--config.augment.brightness=0.1",
)


def test_time_budget_stops_and_the_same_call_continues(tmp_path):
    config = quickstart(max_epochs=4, augment__flip=True)
    experiments.run(config, tmp_path / "whole")
    assert experiments.run(config, tmp_path / "parts", time.monotonic()) is None
    calls = 0
    while experiments.run(config, tmp_path / "parts", time.monotonic() + 0.5 * 2**calls) is None:
        calls += 1
    assert calls > 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


class Preempted(Inspection):
    """Sends SIGTERM to the process of the run after some steps."""

    STEPS = 2, 8, 10  # an epoch has five

    def legs(self, trainer, state, step, folder):
        for leg in super().legs(trainer, state, step, folder):
            step += trainer.leg_steps(step)
            if step in self.STEPS:
                signal.raise_signal(signal.SIGTERM)
            yield leg


@pytest.mark.parametrize(
    "name, stops",
    [
        ("tests.experiments.networks:Convolutional", [2, 8, 10]),  # a program for each step
        ("mlp_1x512", [10]),  # a program for an epoch
    ],
)
def test_a_preempted_run_is_saved_after_the_leg_and_continues(name, stops, tmp_path, monkeypatch):
    config = quickstart(model__name=name, data__num_train=160, augment__flip=True)
    experiments.run(config, tmp_path / "whole")
    for step in stops:
        monkeypatch.setattr(distributed, "_sigterm", threading.Event())
        assert experiments.run(config, tmp_path / "parts", inspection=Preempted()) is None
        assert saved_steps(tmp_path / "parts")[-1] == step
    monkeypatch.setattr(distributed, "_sigterm", threading.Event())
    experiments.run(config, tmp_path / "parts", inspection=Preempted())
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_an_epoch_that_steps_have_begun_ends_by_steps_and_the_next_is_one_program(
    tmp_path, monkeypatch
):
    """As where a run of convolutions begins on a CPU and continues on a GPU."""
    config = quickstart(data__num_train=160)
    experiments.run(config, tmp_path / "whole")
    monkeypatch.setattr(steps, "use_scan", lambda params: False)
    monkeypatch.setattr(distributed, "_sigterm", threading.Event())
    assert experiments.run(config, tmp_path / "parts", inspection=Preempted()) is None
    assert saved_steps(tmp_path / "parts") == [2]
    monkeypatch.undo()
    experiments.run(config, tmp_path / "parts")
    for line, other in zip(lines(tmp_path / "parts"), lines(tmp_path / "whole"), strict=True):
        assert untimed(line) == pytest.approx(untimed(other), rel=1e-5)


def test_a_finished_run_goes_on_to_more_epochs(tmp_path):
    """Also after an error, and where a process was killed just as it had removed the result."""
    longer = quickstart(max_epochs=3, augment__flip=True)
    experiments.run(longer, tmp_path / "whole")
    parts = tmp_path / "parts"
    experiments.run(quickstart(max_epochs=1, augment__flip=True), parts)
    experiments.run(quickstart(max_epochs=2, augment__flip=True), parts)
    assert runs.read_result(parts)["epochs"] == 2
    impossible = longer.copy_and_resolve_references()
    impossible.num_devices = 99
    with pytest.raises(InputError, match="99"):
        experiments.run(impossible, parts)
    assert runs.read_result(parts)["epochs"] == 2
    (parts / "result.json").unlink()
    experiments.run(longer, parts)
    assert_same_run(parts, tmp_path / "whole")
    with pytest.raises(InputError, match="max_epochs: 3 there, 2 now"):
        experiments.run(quickstart(max_epochs=2, augment__flip=True), parts)


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "cosine", "decay_per_epoch": 1},
        {"optimizer": "tests.optimizers:lion", "momentum": 0, "weight_decay": 0},
        {"seed": 1},
    ],
)
def test_no_other_run_is_taken_for_a_shorter_one(fields, tmp_path):
    config = quickstart(max_epochs=2)
    longer = config.copy_and_resolve_references()
    longer.max_epochs = 3
    assert experiments.lengthens(config, longer)
    for one in (config, longer):
        if "seed" not in fields or one is longer:
            one.update(fields)
    assert not experiments.lengthens(config, longer)


def test_a_run_without_its_last_checkpoint_keeps_its_result(tmp_path):
    experiments.run(quickstart(max_epochs=1), tmp_path)
    (tmp_path / "checkpoints" / str(STEPS_PER_EPOCH)).rename(tmp_path / "checkpoints" / "1")
    with pytest.raises(InputError, match="without the checkpoint of its last step"):
        experiments.run(quickstart(max_epochs=2), tmp_path)
    assert runs.read_result(tmp_path)["epochs"] == 1


def test_killed_at_random_moments_a_run_ends_as_if_never_stopped(tmp_path):
    """SIGKILL comes in a step, an evaluation, or while a line or a checkpoint is written."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_whole = command("rethinking.main", *KILLED, f"--workdir={whole}")
    run_killed = command("rethinking.main", *KILLED, f"--workdir={killed}")
    subprocess.run(run_whole, cwd=ROOT, check=True, capture_output=True)
    moments = random.Random(0)
    metrics = killed / "metrics.jsonl"
    for _ in range(3):
        wanted = (len(lines(killed)) if metrics.exists() else 0) + moments.randint(1, 6)

        def is_time(wanted=wanted):
            return metrics.exists() and metrics.read_text().count("\n") >= wanted

        kill(run_killed, is_time, later=moments.uniform(0, 0.2))
    subprocess.run(run_killed, cwd=ROOT, check=True, capture_output=True)
    assert_same_run(killed, whole)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, caplog):
    config = quickstart(checkpoint_seconds=0, max_epochs=4)
    experiments.run(config, tmp_path)
    result, state = untimed(runs.read_result(tmp_path)), final_state(tmp_path)
    (tmp_path / "result.json").unlink()
    newest = tmp_path / f"checkpoints/{4 * STEPS_PER_EPOCH}"
    largest = max(newest.rglob("*"), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with caplog.at_level("WARNING", logger="rethinking"):
        assert untimed(experiments.run(config, tmp_path)) == result
    assert f"checkpoints/{newest.name} is unreadable" in caplog.text
    (aside,) = (tmp_path / "checkpoints.unreadable").iterdir()
    assert aside.name.startswith(f"{newest.name}-")
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path), state)


@pytest.mark.parametrize("changed", [True, False])
def test_checkpoints_that_cannot_be_read_are_left_alone(tmp_path, monkeypatch, changed):
    """The user's network has changed, or the machine has no file handle left."""
    config = quickstart(
        model__name="tests.experiments.networks:Changing", checkpoint_seconds=0, max_epochs=2
    )
    experiments.run(config, tmp_path)
    (tmp_path / "result.json").unlink()
    if changed:
        monkeypatch.setattr(Changing, "width", 30)
    else:
        monkeypatch.setattr(
            ocp.CheckpointManager, "restore", lambda *_, **__: os.stat("/no/such/file")
        )
    before = saved_steps(tmp_path), lines(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read .*choose another --workdir"):
        experiments.run(config, tmp_path)
    assert (saved_steps(tmp_path), lines(tmp_path)) == before
    assert (tmp_path / "config.json").exists()
