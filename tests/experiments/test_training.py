"""Whole training runs on resident data: what they find, and what they leave on disk."""

import itertools
import json
import math
import struct
from typing import NamedTuple

import jax
import numpy as np
import pytest

from rethinking import cli, experiments, runs, sharding
from rethinking.errors import InputError
from rethinking.experiments import devices, resident, training
from tests.experiments.trained import (
    STREAMED_MLP,
    final_state,
    lines,
    quickstart,
    saved_steps,
    untimed,
)

STEPS_PER_EPOCH = 1437 // 32


def tensorboard(workdir):
    """The numbers that TensorBoard shows, by name."""
    from tensorboardX.proto.event_pb2 import Event  # the run has imported it, without PyTorch

    (file,) = workdir.glob("events.out.tfevents.*")
    content, place, found = file.read_bytes(), 0, {}
    while place < len(content):
        # A record has its length, a checksum of that, the event, and a checksum of it.
        (length,) = struct.unpack_from("<Q", content, place)
        event = Event.FromString(content[place + 12 : place + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
        place += length + 16
    return found


def test_a_run_leaves_what_the_contract_says(tmp_path):
    workdir = tmp_path / "run"
    result = experiments.run(quickstart(), workdir)
    assert json.loads((workdir / "result.json").read_text()) == result
    assert result["row"] == "quickstart:true_labels"
    assert result["experiment"] == "quickstart"
    assert result["status"] == "complete"
    assert (result["epochs"], result["steps"]) == (3, 3 * STEPS_PER_EPOCH)
    assert result["num_params"] == 64 * 512 + 512 + 512 * 10 + 10
    assert {
        "seed",
        "seconds",
        "device",
        "num_devices",
        "jax",
        "matmul_precision",
        "float32_products",
        "xla_flags",
        "revision",
        "config_digest",
        "fit_step",
        "train_loss",
        "train_accuracy",
        "test_accuracy",
        "best_test_accuracy",
        "examples_per_second",
    } <= result.keys()
    measured = lines(workdir)
    assert [line["epoch"] for line in measured] == [0, 1, 2, 3]
    rates = [0.05 * 0.98**epoch for epoch in range(4)]
    assert [line["learning_rate"] for line in measured] == pytest.approx(rates)
    assert measured[0]["train_loss"] == pytest.approx(math.log(10), rel=0.5)
    assert measured[3]["test_accuracy"] > 0.8
    shown = tensorboard(workdir)
    names = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate"}
    assert names | {"examples_per_second", "host_memory_gb"} <= shown.keys()
    assert shown["test_accuracy"] == pytest.approx([line["test_accuracy"] for line in measured])
    assert 0.05 < shown["host_memory_gb"][0] < 100
    assert saved_steps(workdir) == [3 * STEPS_PER_EPOCH]
    assert result["network_source"] is None  # the network is this project's own
    again = experiments.run(quickstart(), workdir)
    assert again == result


def test_data_in_memory_stay_on_one_device_unless_more_are_asked_for(tmp_path):
    assert jax.device_count() == 8
    result = experiments.run(quickstart(num_devices=0, max_epochs=1), tmp_path / "default")
    assert (result["num_devices"], result["devices"]) == (1, ["cpu:0"])
    assert result["batch_norm_examples"] is None  # an MLP has no batch norm
    assert devices.count(cli.parse_config(STREAMED_MLP)) == 8
    assert (
        devices.count(cli.parse_config(["--config=configs/complexity.py:stability+alexnet"])) == 1
    )
    assert devices.count(cli.parse_config(["--config=configs/table3.py:mnist"])) == 8


@pytest.mark.parametrize(
    "num_devices, sync, examples", [(0, False, 32), (4, False, 8), (4, True, 32)]
)
def test_a_run_knows_over_how_many_examples_batch_norm_averages(num_devices, sync, examples):
    name = "tests.training.test_steps:Normalized"
    fields = {"model__name": name, "model__sync_batch_norm": sync}
    trainer = resident.ResidentTrainer(quickstart(num_devices=num_devices, **fields))
    assert trainer.batch_norm_examples == examples


def test_the_names_of_devices_are_those_that_made_them_visible(monkeypatch):
    class Device(NamedTuple):
        id: int
        platform: str

    monkeypatch.setattr(sharding, "all_devices", lambda: [Device(0, "gpu"), Device(1, "gpu")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-5a")
    assert devices.names(quickstart(num_devices=2)) == ["gpu:4", "gpu:GPU-5a"]
    assert devices.names(quickstart(num_devices=0)) == ["gpu:4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.names(quickstart(num_devices=2)) == ["gpu:0", "gpu:1"]


def test_random_labels_are_memorized_and_test_at_chance(tmp_path):
    config = quickstart("random_labels", max_epochs=100, stop_when_fit=True)
    result = experiments.run(config, tmp_path)
    assert result["train_accuracy"] >= 0.99
    assert result["fit_step"] == result["steps"] < 100 * STEPS_PER_EPOCH
    assert abs(result["test_accuracy"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 360)
    assert (result["num_test"], result["num_classes"]) == (360, 10)
    assert abs(result["chance_accuracy"] - 0.1) < 0.02


def test_chance_is_the_mean_over_all_orders_of_the_predictions():
    predicted, labels = np.array([0, 0, 2, 0]), np.array([0, 1, 2, 0])
    orders = [
        (predicted[list(order)] == labels).mean() for order in itertools.permutations(range(4))
    ]
    assert resident._chance(predicted, labels, 3) == pytest.approx(np.mean(orders))


def test_only_the_last_evaluation_uses_all_training_images(tmp_path):
    experiments.run(quickstart(), tmp_path / "all")
    experiments.run(quickstart(eval__num_train=100), tmp_path / "some")
    for some, all_ in zip(lines(tmp_path / "some")[:-1], lines(tmp_path / "all")[:-1], strict=True):
        num_correct = 100 * some["train_accuracy"]
        assert num_correct == pytest.approx(round(num_correct), abs=1e-4)
        assert some["train_loss"] != all_["train_loss"]
        assert some["test_loss"] == all_["test_loss"]
    assert untimed(lines(tmp_path / "some")[-1]) == untimed(lines(tmp_path / "all")[-1])
    config = quickstart(eval__num_train=100, stop_when_fit=True, fit_accuracy=0.9)
    fitted = experiments.run(config, tmp_path / "fitted")
    same = lines(tmp_path / "all")[fitted["epochs"]]
    assert fitted["epochs"] < 3
    assert fitted["train_accuracy"] == same["train_accuracy"] >= 0.9


def test_a_diverged_run_ends_with_that_status(tmp_path):
    result = experiments.run(quickstart(learning_rate=1e9, max_epochs=5), tmp_path)
    assert result["status"] == "diverged"
    assert result["epochs"] < 5
    assert result["train_loss"] is None  # JSON has no nan
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_own_network_and_own_data_by_config_alone(tmp_path, tfds_dir):
    config = quickstart(
        model__name="tests.experiments.networks:OwnNetwork",
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
    half = experiments.run(quickstart(dtype="bfloat16"), tmp_path / "bfloat16")
    full = experiments.run(quickstart(dtype="float32"), tmp_path / "float32")
    assert half["train_loss"] != full["train_loss"]
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.1)
    params = jax.tree.leaves(final_state(tmp_path / "bfloat16")["params"])
    assert {param.dtype for param in params} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"batch_size": 2000}, "more than the 1437 training examples"),
        ({"batch_size": 30, "num_devices": 8}, "cannot be split evenly over 8"),
        ({"num_devices": 99}, "this machine has 8"),
        ({"data__num_train": 5000}, "1,437"),
        ({"data__crop_size": 9}, "crop of 9 pixels"),
        ({"data__crop_size": 2, "model__name": "inception"}, "2x2"),
        ({"model__name": "inceptoin"}, "Did you mean 'inception'"),
        ({"model__name": "no.such:Network"}, "no.such"),
        ({"data__name": "digit"}, "Did you mean 'digits'"),
        ({"augment__hue": 0.1}, "channels"),
        (
            {"model__name": "tests.experiments.networks:FiveClasses"},
            "returns (2, 5) for 2 examples, but logits (2, 10) are needed",
        ),
        ({"model__name": "tests.experiments.networks:NoKeys"}, "noise"),
    ],
)
def test_what_cannot_work_is_refused_and_the_folder_is_free_for_what_can(fields, reason, tmp_path):
    with pytest.raises(InputError) as error:
        experiments.run(quickstart(**fields), tmp_path)
    assert reason in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
    with runs.open_run(tmp_path, quickstart(), experiments.scientific):
        pass


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


def test_the_summary_counts_from_the_metrics():
    measured = [
        line(0, 0.1, 0.1, None),
        line(1, 0.95, 0.6, 100.0),
        line(2, 0.992, 0.5, 300.0),
        line(3, 0.98, 0.55, 200.0),
    ]
    assert training.summarize(measured, fit_accuracy=0.99) == {
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


def test_the_summary_of_a_run_that_never_fits_has_no_fit_step():
    summary = training.summarize([line(0, 0.1, 0.1, None)], fit_accuracy=0.99)
    assert summary["fit_step"] is None
    assert summary["examples_per_second"] is None
