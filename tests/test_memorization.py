"""The paper's first claim, on a thousand images: convolutional networks fit random labels (section 2.1)."""

import math

import pytest

from rethinking import cli


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", [
    "alexnet", "inception",
    pytest.param("inception_no_bn", marks=pytest.mark.xfail(strict=True, reason="its ReLUs die: results/NOTES.md")),
])  # fmt: skip
def test_convolutional_networks_fit_random_labels_of_1000_images(model, tmp_path, tfds_dir):
    """At the paper's hyperparameters; every label, in evaluation mode; and the test set is at chance.

    The batch is 32 instead of 128, so that an epoch, after each of which the learning rate falls, still is 31 steps.
    """
    config = cli.parse_config([
        f"--config=configs/table1.py:{model}+random_labels", "--config.data.num_train=1000",
        f"--config.data.data_dir={tfds_dir('cifar10')}", "--config.fit_accuracy=1.0", "--config.stop_when_fit=true",
        "--config.num_devices=1", "--config.eval_batch_size=500", "--config.data.num_test=500",
        "--config.batch_size=32",
    ])  # fmt: skip
    result = cli.run(config, tmp_path)
    assert result["status"] == "complete"
    assert result["train_accuracy"] == 1.0
    assert abs(result["test_accuracy"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 500)
