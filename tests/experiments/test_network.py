"""The learning rate that a config describes, against the recipe's formula."""

import pytest

from rethinking import cli
from rethinking.experiments import network


def test_learning_rate_of_table_2():
    """0.045 for 32 images, 1.44 for 1024; a ramp of five epochs; 0.94 every two epochs."""
    config = cli.parse_config(["--config=configs/table2.py:none"])
    steps_per_epoch = 1251
    rate = network.learning_rate(config, steps_per_epoch)
    assert float(rate(0)) == pytest.approx(1.44 / (5 * steps_per_epoch))
    assert float(rate(5 * steps_per_epoch)) == pytest.approx(1.44 * 0.94**2, rel=1e-5)
    assert float(rate(20 * steps_per_epoch)) == pytest.approx(1.44 * 0.94**10, rel=1e-5)
