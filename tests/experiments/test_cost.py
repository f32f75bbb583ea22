"""What a training step costs each chip, against counts by hand, without any GPU or TPU."""

import importlib.util
import json
from types import SimpleNamespace

import jax
import pytest

from rethinking import cli, sharding
from rethinking.errors import InputError
from rethinking.experiments import cost, topologies
from tests.test_commands import module

ROW = (
    "--config=configs/figure1.py:mlp_1x512+true_labels",
    "--config.data.name=imagenet2012",
    "--config.data.stream=true",
    "--config.data.crop_size=0",
    "--config.data.image_size=32",
    "--config.batch_size=64",
)
# 32 x 32 x 3 values to 512 units to 1000 classes.
NUM_PARAMS = 3072 * 512 + 512 + 512 * 1000 + 1000


def has_gpu_compiler():
    found = importlib.util.find_spec("jax_plugins")
    return found is not None and importlib.util.find_spec("jax_plugins.xla_cuda13") is not None


def test_memory_work_and_traffic_are_those_of_the_network():
    line = cost.describe(cli.parse_config(ROW), sharding.device_mesh(0))
    assert (line["chips"], line["batch"]) == (8, 64)
    # The state is parameters and momentum. Gradients are summed once.
    assert line["state_gb"] == pytest.approx(2 * 4 * NUM_PARAMS / 1e9, rel=0.02)
    assert line["collectives_gb"] == pytest.approx(4 * NUM_PARAMS / 1e9, rel=0.02)
    # A weight takes a multiplication and an addition per image in the forward pass, as many for its
    # own gradient, and, except in the first layer, as many for the gradient of its input.
    weights = 2 * 3072 * 512 + 3 * 512 * 1000
    large = cost.describe(
        cli.parse_config((*ROW, "--config.batch_size=65536")), sharding.device_mesh(0)
    )
    assert large["tflop"] == pytest.approx(2 * 8192 * weights / 1e12, rel=0.1)
    assert "step_ms" not in line  # no rates are published for this CPU


def test_a_row_on_the_device_has_its_data_set_there():
    """Of CIFAR10, which need not be prepared."""
    row = ["--config=configs/table1.py:mlp_1x512", "--config.data.data_dir=/nowhere"]
    line = cost.describe(cli.parse_config(row), sharding.device_mesh(0))
    assert (line["chips"], line["batch"]) == (8, 128)
    # Whitened crops in float32, and the label and the index of each.
    assert line["data_gb"] == pytest.approx(50_000 * (28 * 28 * 3 * 4 + 8) / 1e9, abs=1e-4)
    num_params = 2352 * 512 + 512 + 512 * 10 + 10
    assert line["state_gb"] == pytest.approx(2 * 4 * num_params / 1e9, abs=3e-4)
    assert line["collectives_gb"] == pytest.approx(4 * num_params / 1e9, abs=1e-4)


def test_the_command_compiles_for_the_devices_that_the_row_uses(monkeypatch, capsys):
    """Data in memory stay on one device by default, although this machine has eight."""
    command = module("launch.compile")
    flags = {"_CONFIG": "configs/quickstart.py:true_labels", "_TOPOLOGY": None}
    for name, value in (flags | {"_LARGEST_BATCH": False}).items():
        monkeypatch.setattr(command, name, SimpleNamespace(value=value))
    command.main(["--config.batch_size=64"])
    line = json.loads(capsys.readouterr().out)
    assert (line["chips"], line["batch"]) == (1, 64)


# What benchmarks/README.md says was compiled for an H200.
H200 = [
    ("mlp_1x512", "float32", 23, 0, 0.06, 12),
    ("mlp_3x512", "bfloat16", 41, 0, 0.08, 9),
    ("inception", "float32", 264, 56, 3.96, 410),
    ("inception", "bfloat16", 282, 56, 2.04, 218),
]


@pytest.mark.slow
@pytest.mark.parametrize("model, dtype, launches, convolutions, gigabytes, megabytes", H200)
def test_a_row_compiled_for_an_h200_is_that_of_the_committed_table(
    model, dtype, launches, convolutions, gigabytes, megabytes
):
    if not has_gpu_compiler():
        pytest.skip("XLA's compiler for GPUs is not installed: pip install -e '.[compile_gpu]'")
    config = cli.parse_config([f"--config=configs/table1.py:{model}", f"--config.dtype={dtype}"])
    line = cost.describe(config, topologies.make_mesh("h200"))
    assert (line["chip"], line["fits"]) == ("NVIDIA H200", True)
    assert (line["launches"], line["convolutions"]) == (launches, convolutions)
    assert line["accessed_gb"] == pytest.approx(gigabytes, abs=0.005)
    # The table is rounded to 1 MB, and the line to 0.1 MB.
    assert line["temporary_gb"] == pytest.approx(megabytes / 1000, abs=0.00055)


def test_a_card_is_described_to_xla_by_its_published_facts():
    lines = [line.strip() for line in topologies.description("h200").splitlines()]
    for fact in (
        "core_count: 132",
        "memory_bandwidth: 4800000000000",
        "shared_memory_per_block_optin: 232448",  # 227 KiB
        'device_description_str: "NVIDIA H200"',
    ):
        assert fact in lines
    assert "core_count: 108" in topologies.description("a100")


@pytest.mark.parametrize("batch", [64, 2048, 8 * 2048])
def test_largest_batch_is_the_last_power_of_two_that_fits(batch, monkeypatch):
    """It is found upwards from a batch that fits, and downwards from one that does not."""
    mesh, config = sharding.device_mesh(0), cli.parse_config(ROW)
    with pytest.raises(InputError, match=r"'cpu' is not known here. Known chips are: TPU v4"):
        cost.largest_batch(config, mesh)
    monkeypatch.setitem(cost.CHIPS, "cpu", cost.Chip(1e9, 1e12, 1e11, 1e10))

    def describe(config, mesh):
        if config.batch_size > 8 * 1024:
            raise RuntimeError("RESOURCE_EXHAUSTED: of the compiler")
        return {"batch": config.batch_size, "fits": config.batch_size < 5000}

    monkeypatch.setattr(cost, "describe", describe)
    config.batch_size = batch
    assert cost.largest_batch(config, mesh)["batch"] == 8 * 512
    monkeypatch.setattr(cost, "describe", lambda config, mesh: {"fits": False})
    assert cost.largest_batch(config, mesh)["fits"] is False


def test_no_batch_is_larger_than_the_set(monkeypatch):
    monkeypatch.setitem(cost.CHIPS, "cpu", cost.Chip(1e9, 1e12, 1e11, 1e10))
    row = ["--config=configs/table1.py:mlp_1x512", "--config.data.num_train=1000"]
    monkeypatch.setattr(
        cost, "describe", lambda config, mesh: {"batch": config.batch_size, "fits": True}
    )
    line = cost.largest_batch(cli.parse_config(row), sharding.device_mesh(0))
    assert line["batch"] == 512


def test_roofline_adds_collectives_to_the_slower_of_work_and_memory():
    chip = cost.Chip(memory=16e9, flops=100e12, bandwidth=1e12, links=1e11)
    program = {"flops": 1e12, "bytes accessed": 20e9}
    line = cost.roofline(chip, 256, 4, program, sent=1e9, total=15e9)
    assert (line["work_ms"], line["memory_ms"]) == (10, 20)
    assert line["collectives_ms"] == 15  # 2 * 3/4 * 1e9 / 1e11 seconds
    assert line["step_ms"] == 35
    assert line["images_per_second"] == round(256 / 0.035)
    assert "launches_ms" not in line
    started = cost.Chip(16e9, 100e12, 1e12, 1e11, float32=10e12, launch_seconds=1e-3)
    line = cost.roofline(started, 256, 1, program, 0, 15e9, "float32", launches=150)
    assert (line["work_ms"], line["launches_ms"], line["step_ms"]) == (100, 150, 150)
    assert line["fits"] and not cost.roofline(chip, 256, 4, program, 1e9, total=17e9)["fits"]


def test_collectives_are_found_in_a_programs_text():
    text = """%all-reduce.1 = f32[3,4]{1,0} all-reduce(f32[3,4] %x), replica_groups={}
      %y = (bf16[10]{0}, f32[]) all-reduce-start(bf16[10] %a, f32[] %b)
      %z = f32[100]{0} add(f32[100] %p, f32[100] %all-reduce.1)"""
    assert cost.collective_bytes(text) == 3 * 4 * 4 + 10 * 2 + 4


def test_what_cannot_work_is_refused():
    mesh = sharding.device_mesh(0)
    assert jax.device_count() == 8
    with pytest.raises(InputError, match="cannot be split evenly over 8"):
        cost.describe(cli.parse_config([*ROW, "--config.batch_size=12"]), mesh)
    with pytest.raises(InputError, match="does not train a network"):
        cost.describe(cli.parse_config(["--config=configs/expressivity.py:mnist"]), mesh)
    with pytest.raises(InputError, match="h100:8"):
        topologies.make_mesh("h300:2")
    if not has_gpu_compiler():
        with pytest.raises(InputError, match=r"topology h100:8: .*compile_gpu.* version of jax"):
            topologies.make_mesh("h100:8")
    with pytest.raises(InputError, match="libtpu"):
        topologies.make_mesh("v5e:three")
