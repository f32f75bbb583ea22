"""The paper's first claim: networks fit random labels (section 2.1)."""

import math

import pytest

from rethinking import cli, experiments

# The learning rate falls after every epoch, and batches of 128 would make only 7 steps of an epoch.
# So an epoch is 31 steps of 32 images, or else the rate stays the same for 100 epochs.
SMALL_BATCHES = (
    "--config.data.num_train=1000",
    "--config.batch_size=32",
    "--config.fit_accuracy=1.0",
)
SLOW_DECAY = (
    "--config.data.num_train=1024",
    "--config.max_epochs=1000",
    "--config.epochs_per_decay=100",
    "--config.eval_epochs=10",
)


# Today's networks see a centre crop, since training them takes long on two cores.
RESNET_18 = (
    *SMALL_BATCHES,
    "--config.model.name=resnet_18",
    "--config.data.crop_size=8",
)
VIT = (
    "--config.model.name=vit_patch4",
    "--config.data.num_train=1000",
    "--config.data.crop_size=16",
    "--config.batch_size=50",
    "--config.optimizer=adamw",
    "--config.learning_rate=0.001",
    "--config.warmup_epochs=1.0",
    "--config.schedule=cosine",
    "--config.fit_accuracy=1.0",
)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "row,overrides",
    [
        ("alexnet", SMALL_BATCHES),
        ("inception", SMALL_BATCHES),
        ("inception_no_bn", SLOW_DECAY),  # with small batches its ReLUs die: results/NOTES.md
        ("mlp_1x512", RESNET_18),
        ("mlp_1x512", VIT),
    ],
)
def test_networks_fit_random_labels_of_1000_images(row, overrides, tmp_path, tfds_dir):
    """The paper's networks have its learning rate and momentum. The test accuracy is chance."""
    config = cli.parse_config(
        [
            f"--config=configs/table1.py:{row}+random_labels",
            f"--config.data.data_dir={tfds_dir('cifar10')}",
            "--config.stop_when_fit=true",
            "--config.num_devices=1",
            "--config.eval_batch_size=500",
            "--config.data.num_test=500",
            *overrides,
        ]
    )
    result = experiments.run(config, tmp_path)
    assert result["status"] == "complete"
    assert result["train_accuracy"] >= config.fit_accuracy
    assert abs(result["test_accuracy"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 500)
