"""Whole runs: what ends up in the run directory, and that stopping and continuing leaves no trace."""

import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rethinking import cli, experiments, runs
from rethinking.errors import InputError

TIMES = ("seconds", "examples_per_second")
ROOT = pathlib.Path(__file__).parents[2]


class OwnNetwork(nn.Module):
    """A user's own: it knows its classes, and has dropout and batch norm as Flax has them."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(len(x), 7, 4, 7, 4).mean((2, 4)).reshape(len(x), -1)
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(32)(x))
        return nn.Dense(self.num_classes)(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))


class Changing(nn.Module):
    """A user's own, whose code changes between two calls of a command."""

    num_classes: int
    width = 20

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.Dense(self.width)(x.reshape(len(x), -1)))


class FiveClasses(nn.Module):
    """A user's own, which takes no account of how many classes there are."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(5)(x.reshape(len(x), -1))


class NoKeys(nn.Module):
    """A user's own, which asks in training for randomness that nobody gives."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if train else 0
        return nn.Dense(self.num_classes)((x + noise).reshape(len(x), -1))


def quickstart(row="true_labels", **fields):
    fields = {"num_devices": 1, "max_epochs": 3} | {
        name.replace("__", "."): value for name, value in fields.items()
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return cli.parse_config([f"--config=configs/quickstart.py:{row}", *overrides])


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def untimed(record):
    return {name: value for name, value in record.items() if name not in TIMES}


def final_params(workdir):
    manager = ocp.CheckpointManager(
        workdir / "checkpoints", options=ocp.CheckpointManagerOptions(read_only=True)
    )
    state = ocp.args.Composite(state=ocp.args.StandardRestore())
    return jax.tree.map(np.asarray, manager.restore(manager.latest_step(), args=state).state)


def test_a_run_leaves_what_the_contract_says(tmp_path):
    result = experiments.run(quickstart(), tmp_path / "run")
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert result["row"] == "quickstart:true_labels"
    assert result["experiment"] == "quickstart"
    assert (result["status"], result["epochs"], result["steps"]) == (
        "complete",
        3,
        3 * (1437 // 32),
    )
    assert result["num_params"] == 64 * 512 + 512 + 512 * 10 + 10
    assert {
        "seed",
        "seconds",
        "device",
        "num_devices",
        "jax",
        "revision",
        "config_digest",
        "fit_step",
        "train_loss",
        "train_accuracy",
        "test_accuracy",
        "best_test_accuracy",
        "examples_per_second",
    } <= result.keys()
    measured = lines(tmp_path / "run")
    assert [line["epoch"] for line in measured] == [0, 1, 2, 3]
    assert [line["learning_rate"] for line in measured] == pytest.approx(
        [0.05 * 0.98**epoch for epoch in range(4)]
    )
    assert measured[0]["train_loss"] == pytest.approx(math.log(10), rel=0.5)
    assert measured[3]["test_accuracy"] > 0.8
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert sorted(int(path.name) for path in (tmp_path / "run/checkpoints").iterdir()) == [
        3 * (1437 // 32)
    ]
    again = experiments.run(quickstart(), tmp_path / "run")
    assert again == result


def test_random_labels_are_memorized_and_test_at_chance(tmp_path):
    result = experiments.run(
        quickstart("random_labels", max_epochs=100, stop_when_fit=True), tmp_path
    )
    assert result["train_accuracy"] >= 0.99
    assert result["fit_step"] == result["steps"] < 100 * (1437 // 32)
    assert abs(result["test_accuracy"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 360)


def test_time_budget_stops_and_the_same_call_continues(tmp_path):
    whole = experiments.run(quickstart(max_epochs=4, augment__flip=True), tmp_path / "whole")
    config = quickstart(max_epochs=4, augment__flip=True)
    assert experiments.run(config, tmp_path / "parts", time.time()) is None
    calls = 0
    while not (result := experiments.run(config, tmp_path / "parts", time.time() + 0.5 * calls)):
        calls += 1
    assert calls > 0
    assert untimed(result) == untimed(whole)
    assert list(map(untimed, lines(tmp_path / "parts"))) == list(
        map(untimed, lines(tmp_path / "whole"))
    )


def test_on_the_way_some_training_images_count_in_the_end_all(tmp_path):
    experiments.run(quickstart(), tmp_path / "all")
    experiments.run(quickstart(eval__num_train=100), tmp_path / "some")
    for some, all_ in zip(lines(tmp_path / "some")[:-1], lines(tmp_path / "all")[:-1], strict=True):
        assert 100 * some["train_accuracy"] == pytest.approx(
            round(100 * some["train_accuracy"]), abs=1e-4
        )
        assert some["train_loss"] != all_["train_loss"] and some["test_loss"] == all_["test_loss"]
    assert untimed(lines(tmp_path / "some")[-1]) == untimed(lines(tmp_path / "all")[-1])
    fitted = experiments.run(
        quickstart(eval__num_train=100, stop_when_fit=True, fit_accuracy=0.9), tmp_path / "fitted"
    )
    same = lines(tmp_path / "all")[fitted["epochs"]]
    assert fitted["epochs"] < 3 and fitted["train_accuracy"] == same["train_accuracy"] >= 0.9


def test_a_diverged_run_ends_with_that_status(tmp_path):
    result = experiments.run(quickstart(learning_rate=1e9, max_epochs=5), tmp_path)
    assert result["status"] == "diverged"
    assert result["epochs"] < 5
    assert result["train_loss"] is None  # JSON has no nan
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # TensorStore's own, of the failed read
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog):
    config = quickstart(checkpoint_seconds=0, max_epochs=4)
    experiments.run(config, tmp_path)
    before = untimed(runs.read_result(tmp_path)), final_params(tmp_path)
    (tmp_path / "result.json").unlink()
    newest = tmp_path / f"checkpoints/{4 * (1437 // 32)}"
    largest = max(newest.rglob("*"), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with caplog.at_level("WARNING", logger="rethinking"):
        result = experiments.run(config, tmp_path)
    assert f"checkpoints/{newest.name} is unreadable" in caplog.text
    assert untimed(result) == before[0]
    jax.tree.map(np.testing.assert_array_equal, final_params(tmp_path), before[1])


@pytest.mark.parametrize("changed", [True, False])
def test_checkpoints_that_cannot_be_read_are_left_alone(tmp_path, monkeypatch, changed):
    """Because the user's network was changed meanwhile, or the machine has no file handle left."""
    config = quickstart(model__name="tests.experiments.test_training:Changing", checkpoint_seconds=0, max_epochs=2)
    experiments.run(config, tmp_path)
    (tmp_path / "result.json").unlink()
    if changed:
        monkeypatch.setattr(Changing, "width", 30)
    else:
        monkeypatch.setattr(
            ocp.CheckpointManager, "restore", lambda *_, **__: os.stat("/no/such/file")
        )
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir()), lines(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read .*choose another --workdir"):
        experiments.run(config, tmp_path)
    assert (
        sorted(path.name for path in (tmp_path / "checkpoints").iterdir()),
        lines(tmp_path),
    ) == before
    assert (tmp_path / "config.json").exists()


def command(workdir):
    return [
        sys.executable,
        "-m",
        "rethinking.main",
        "--config=configs/quickstart.py:corrupt=0.5",
        f"--workdir={workdir}",
        "--config.max_epochs=40",
        "--config.checkpoint_seconds=0",
        "--config.num_devices=1",
        "--config.augment.flip=true",
        "--config.augment.brightness=0.1",
    ]


def test_killed_at_random_moments_a_run_ends_as_if_never_stopped(tmp_path):
    """SIGKILL at random: in a step, an evaluation, a line being written or a checkpoint being saved."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command(killed), cwd=ROOT, stderr=subprocess.DEVNULL)
        lines_before = len(lines(killed)) if (killed / "metrics.jsonl").exists() else 0
        wanted = lines_before + moments.randint(1, 6)
        while process.poll() is None and not (
            (killed / "metrics.jsonl").exists()
            and (killed / "metrics.jsonl").read_text().count("\n") >= wanted
        ):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it was not over yet
    subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True)
    assert untimed(runs.read_result(killed)) == untimed(runs.read_result(whole))
    assert list(map(untimed, lines(killed))) == list(map(untimed, lines(whole)))
    jax.tree.map(np.testing.assert_array_equal, final_params(killed), final_params(whole))


def test_own_network_and_own_data_by_config_alone(tmp_path, tfds_dir):
    config = quickstart(
        model__name="tests.experiments.test_training:OwnNetwork",
        data__name="mnist",
        data__data_dir=tfds_dir("mnist"),
        data__num_train=5000,
        batch_size=50,
        max_epochs=3,
        learning_rate=0.1,
    )
    result = experiments.run(config, tmp_path)
    assert result["status"] == "complete"
    assert result["num_params"] == 49 * 32 + 32 + 2 * 32 + 32 * 10 + 10
    assert result["test_accuracy"] > 0.85


def test_bfloat16_computes_nearly_the_same(tmp_path):
    half, full = (
        experiments.run(quickstart(dtype=dtype), tmp_path / dtype)
        for dtype in ("bfloat16", "float32")
    )
    assert half["train_loss"] != full["train_loss"]
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.1)
    assert {
        param.dtype for param in jax.tree.leaves(final_params(tmp_path / "bfloat16")["params"])
    } == {np.dtype("float32")}


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"batch_size": 2000}, "more than the 1437 training images"),
        ({"batch_size": 30, "num_devices": 8}, "cannot be split evenly over 8"),
        ({"num_devices": 99}, "this machine has 8"),
        ({"data__num_train": 5000}, "1,437"),
        ({"data__crop_size": 9}, "9"),
        ({"data__crop_size": 2, "model__name": "inception"}, "2x2"),
        ({"model__name": "inceptoin"}, "Did you mean 'inception'"),
        ({"model__name": "no.such:Network"}, "no.such"),
        ({"data__name": "digit"}, "Did you mean 'digits'"),
        ({"augment__hue": 0.1}, "channels"),
        (
            {"model__name": "tests.experiments.test_training:FiveClasses"},
            "makes (2, 5) of 2 images where logits (2, 10) are needed",
        ),
        ({"model__name": "tests.experiments.test_training:NoKeys"}, "noise"),
    ],
)
def test_what_cannot_work_is_refused_and_the_folder_is_free_for_what_can(fields, reason, tmp_path):
    with pytest.raises(InputError) as error:
        experiments.run(quickstart(**fields), tmp_path)
    assert reason in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
    with runs.open_run(tmp_path, quickstart(), experiments.scientific):
        pass


def test_summary_counts_from_the_metrics():
    def line(epoch, train, test, rate):
        return {
            "step": 10 * epoch,
            "epoch": epoch,
            "train_accuracy": train,
            "test_accuracy": test,
            "train_loss": 1 - train,
            "examples_per_second": rate,
            "seconds": 2.0 * epoch,
        }

    summary = progress.summarize(
        [
            line(0, 0.1, 0.1, None),
            line(1, 0.95, 0.6, 100.0),
            line(2, 0.992, 0.5, 300.0),
            line(3, 0.98, 0.55, 200.0),
        ],
        fit_accuracy=0.99,
    )
    assert summary == {
        "seconds": 6.0,
        "steps": 30,
        "epochs": 3,
        "fit_step": 20,
        "train_accuracy": 0.98,
        "test_accuracy": 0.55,
        "best_test_accuracy": 0.6,
        "train_loss": pytest.approx(0.02),
        "examples_per_second": 200.0,
    }
    assert progress.summarize([line(0, 0.1, 0.1, None)], 0.99)["fit_step"] is None
