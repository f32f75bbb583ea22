"""What a training step costs each chip, against counts by hand, without any TPU."""

import jax
import pytest

from rethinking import cli
from rethinking.errors import InputError
from rethinking.experiments import cost

ROW = (
    "--config=configs/figure1.py:mlp_1x512+true_labels",
    "--config.data.stream=true",
    "--config.data.crop_size=0",
    "--config.data.image_size=32",
    "--config.batch_size=64",
)
# 32 x 32 x 3 values to 512 units to 1000 classes.
NUM_PARAMS = 3072 * 512 + 512 + 512 * 1000 + 1000


def test_memory_work_and_traffic_are_those_of_the_network():
    line = cost.describe(cli.parse_config(ROW), cost.make_mesh(None))
    assert (line["chips"], line["batch"]) == (8, 64)
    # The state is parameters and momentum. Gradients are summed once.
    assert line["state_gb"] == pytest.approx(2 * 4 * NUM_PARAMS / 1e9, rel=0.02)
    assert line["collectives_gb"] == pytest.approx(4 * NUM_PARAMS / 1e9, rel=0.02)
    # A weight takes a multiplication and an addition per image in the forward pass, as many for its
    # own gradient, and, except in the first layer, as many for the gradient of its input.
    weights = 2 * 3072 * 512 + 3 * 512 * 1000
    large = cost.describe(
        cli.parse_config((*ROW, "--config.batch_size=65536")), cost.make_mesh(None)
    )
    assert large["tflop"] == pytest.approx(2 * 8192 * weights / 1e12, rel=0.1)
    assert "step_ms" not in line  # no rates are published for this CPU


def test_largest_batch_is_the_last_power_of_two_that_fits(monkeypatch):
    mesh, config = cost.make_mesh(None), cli.parse_config(ROW)
    with pytest.raises(InputError, match=r"'cpu' is not known here. Known chips are: TPU v4"):
        cost.largest_batch(config, mesh)
    total_gb = []
    for per_chip in (512, 1024):
        larger = cli.parse_config((*ROW, f"--config.batch_size={8 * per_chip}"))
        total_gb.append(cost.describe(larger, mesh)["total_gb"])
    fits, does_not = total_gb
    assert fits < does_not
    monkeypatch.setitem(cost.CHIPS, "cpu", cost.Chip(1e9 * (fits + does_not) / 2, 1e12, 1e11, 1e10))
    assert cost.largest_batch(config, mesh)["batch"] == 8 * 512


def test_roofline_adds_collectives_to_the_slower_of_work_and_memory():
    chip = cost.Chip(memory=16e9, flops=100e12, bandwidth=1e12, links=1e11)
    program = {"flops": 1e12, "bytes accessed": 20e9}
    line = cost.roofline(chip, 256, 4, program, sent=1e9, total=15e9)
    assert (line["work_ms"], line["memory_ms"]) == (10, 20)
    assert line["collectives_ms"] == 15  # 2 * 3/4 * 1e9 / 1e11 seconds
    assert line["step_ms"] == 35
    assert line["images_per_second"] == round(256 / 0.035)
    assert line["fits"] and not cost.roofline(chip, 256, 4, program, 1e9, total=17e9)["fits"]


def test_collectives_are_found_in_a_programs_text():
    text = """%all-reduce.1 = f32[3,4]{1,0} all-reduce(f32[3,4] %x), replica_groups={}
      %y = (bf16[10]{0}, f32[]) all-reduce-start(bf16[10] %a, f32[] %b)
      %z = f32[100]{0} add(f32[100] %p, f32[100] %all-reduce.1)"""
    assert cost.collective_bytes(text) == 3 * 4 * 4 + 10 * 2 + 4


def test_what_cannot_work_is_refused():
    mesh = cost.make_mesh(None)
    assert jax.device_count() == 8
    with pytest.raises(InputError, match="cannot be split evenly over 8"):
        cost.describe(cli.parse_config([*ROW, "--config.batch_size=12"]), mesh)
    with pytest.raises(InputError, match=r"configs/table2.py"):
        cost.describe(cli.parse_config(["--config=configs/table1.py:alexnet"]), mesh)
    with pytest.raises(InputError, match="libtpu"):
        cost.make_mesh("v5e:three")
