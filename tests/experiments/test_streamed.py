"""Whole runs whose images are read from disk, in one process."""

import types

import jax
import numpy as np
import psutil
import pytest

from rethinking import cli, experiments, sharding
from rethinking.data import decode
from rethinking.errors import InputError
from rethinking.experiments import streamed
from tests.experiments.trained import (
    STREAMED_INCEPTION,
    STREAMED_MLP,
    final_state,
    lines,
    untimed,
)


def test_random_labels_are_memorized_in_exact_epochs(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    result = experiments.run(cli.parse_config([*STREAMED_MLP, "--config.num_devices=1"]), tmp_path)
    assert (result["status"], result["steps"], result["epochs"]) == ("complete", 25, 4)
    assert result["train_accuracy"] == result["train_accuracy_top5"] == 1.0
    assert result["test_accuracy"] < 0.3
    assert result["test_accuracy"] <= result["test_accuracy_top5"]
    assert result["test_accuracy_top5"] <= result["best_test_accuracy_top5"]
    # 100 images are 6 and a quarter batches.
    assert [line["step"] for line in lines(tmp_path)] == [0, 7, 13, 19, 25]


def test_only_the_last_evaluation_uses_all_training_images(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    arguments = (*STREAMED_MLP, "--config.num_devices=1", "--config.max_epochs=1")
    experiments.run(cli.parse_config(arguments), tmp_path / "all")
    experiments.run(cli.parse_config([*arguments, "--config.eval.num_train=30"]), tmp_path / "some")
    some, some_end = lines(tmp_path / "some")
    all_, all_end = lines(tmp_path / "all")
    num_correct = 30 * some["train_accuracy_top5"]
    assert num_correct == pytest.approx(round(num_correct), abs=1e-4)
    assert some["train_loss"] != all_["train_loss"]
    assert some["test_loss"] == all_["test_loss"]
    assert untimed(some_end) == untimed(all_end)


def test_evaluation_uses_the_moving_average(tmp_path, tfds_dir):
    """A decay near one keeps the average near the start: TensorFlow's ramp keeps 0.9 at most."""
    tfds_dir("imagenette_subset")
    settings = (*STREAMED_MLP, "--config.num_devices=1", "--config.max_epochs=1")
    plain = experiments.run(cli.parse_config(settings), tmp_path / "plain")
    averaged = experiments.run(
        cli.parse_config([*settings, "--config.average_decay=0.9999"]), tmp_path / "averaged"
    )
    plain_state, averaged_state = (
        final_state(tmp_path / "plain"),
        final_state(tmp_path / "averaged"),
    )
    jax.tree.map(np.testing.assert_array_equal, plain_state["params"], averaged_state["params"])
    assert averaged["train_loss"] != plain["train_loss"]
    average = averaged_state["average"]["average"]["params"]["Dense_0"]["bias"]
    last = averaged_state["params"]["Dense_0"]["bias"]
    assert 0 < np.abs(average).max() < np.abs(last).max()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_inception_v3_fits_random_labels_of_200_jpegs(tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    config = cli.parse_config(
        [
            *STREAMED_INCEPTION,
            "--config.data.num_train=200",
            "--config.data.num_test=400",
            "--config.batch_size=20",
            "--config.eval_batch_size=200",
            "--config.max_epochs=200",
            "--config.stop_when_fit=true",
            "--config.fit_accuracy=1.0",
            "--config.eval_epochs=5",
            "--config.num_devices=1",
            "--config.model.options.width=0.25",
            "--config.decay_per_epoch=0.98",
        ]
    )
    result = experiments.run(config, tmp_path)
    assert result["train_accuracy"] == 1.0
    assert abs(result["test_accuracy"] - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)


@pytest.mark.parametrize(
    "override, reason",
    [
        ("--config.data.name=digits", "digits cannot be streamed"),
        ("--config.data.name=mnist", "do not have 3 channels"),
        ("--config.randomize.pixels=shuffled", "sets that fit into memory"),
        ("--config.data.num_train=7000", "num_train"),
        ("--config.batch_size=12", "evenly over 8"),
        ("--config.optimizer=adam", "Did you mean 'adamw'"),
        ("--config.data.image_size=0", "image_size"),
        ("--config.data.whiten=False", "never whitened"),
        ("--config.data.stream=False", "image_size and config.data.skip_bad are for streamed"),
        ("--config.batch_size=104", "more than config.data.num_train=100"),
    ],
)
def test_what_cannot_work_is_refused(override, reason, tmp_path, tfds_dir):
    tfds_dir("imagenette_subset")
    tfds_dir("mnist")
    with pytest.raises(InputError, match=reason):
        experiments.run(cli.parse_config([*STREAMED_MLP, override]), tmp_path)


@pytest.mark.parametrize(
    "setting, reason",
    [
        # 4 bytes for each value in 8 batches of 2 images.
        ("data.image_size=2305", r"2 images of 2305 x 2305 pixels on each device takes 1\.0 GB"),
        ("data.num_threads=100", r"reading 400 images of 1000 x 1000 pixels ahead takes 1\.2 GB"),
    ],
)
def test_what_does_not_fit_in_memory_is_refused(setting, reason, monkeypatch):
    memory = types.SimpleNamespace(available=10**9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    settings = (*STREAMED_MLP, "--config.data.image_size=1000", "--config.data.num_threads=16")

    def require_memory(*more):
        config = cli.parse_config([*settings, *more])
        mesh = sharding.device_mesh(0)
        streamed._require_memory(config, mesh, 8, config.data.num_threads)

    require_memory()
    with pytest.raises(InputError, match=reason):
        require_memory(f"--config.{setting}")


@pytest.mark.parametrize(
    "rows, num_images, num_devices, expected",
    [
        (16, 44, 1, 16),
        (1000, 44, 1, 1000),
        (2**20, 44, 8, 8 * 1000),
        (2**20, 5001, 1, 5001),
        (2**20, 8001, 8, 8 * 1001),
        (1001, 2**20, 8, 8 * 1001),
    ],
)
def test_a_large_batch_of_an_evaluation_is_not_larger_than_the_set(
    rows, num_images, num_devices, expected
):
    config = cli.parse_config([*STREAMED_MLP, f"--config.eval_batch_size={rows}"])
    mesh = sharding.device_mesh(num_devices)
    assert streamed._eval_rows(config, mesh, num_images) == expected


def test_a_set_without_a_readable_image_is_refused(tmp_path, tfds_dir, monkeypatch):
    tfds_dir("imagenette_subset")

    def unreadable(*arguments):
        raise decode.DecodeError("no JPEG")

    monkeypatch.setattr(decode, "central_view", unreadable)
    with pytest.raises(InputError, match="none of the 100 images of a split can be read"):
        experiments.run(cli.parse_config([*STREAMED_MLP, "--config.data.skip_bad=True"]), tmp_path)
