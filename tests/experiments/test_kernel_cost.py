"""What a kernel system costs each chip, compiled for fake devices and counted by hand."""

from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from rethinking import chips, cli, sharding
from rethinking.errors import InputError
from rethinking.experiments import kernel_cost
from rethinking.kernels import count, layout
from tests.test_commands import module


def describe(row, *overrides):
    config = cli.parse_config(
        [f"--config=configs/table3.py:{row}", "--config.data.data_dir=/nowhere", *overrides]
    )
    return kernel_cost.describe(config, sharding.device_mesh(0))


def test_the_matrix_the_work_and_the_seconds_are_counted(monkeypatch):
    """For a chip that computes 1e12 operations a second, in a gigabyte of memory."""
    chip = chips.Chip(1e9, 1e12, 1e15, 1e15, exact_float32=1e12, float64=1e12)
    monkeypatch.setitem(kernel_cost.CHIPS, "cpu", chip)
    line = describe("mnist", "--config.data.num_train=2000")
    places = layout.make(2000, 8)
    matrix = places.entries * 8
    assert (line["n"], line["features"], line["chips"]) == (2000, 784, 8)
    assert line["matrix_gb"] == pytest.approx(matrix / 1e9, abs=1e-4)
    # The programs overwrite the matrix, and hold little beside it and the examples.
    examples = 2000 / 8 * 784 * 8
    assert line["total_gb"] < (1.3 * matrix + 2 * examples) / 1e9
    assert line["fits"] and line["host_gb"] == 0
    gram = 2000**2 * 784  # half of the matrix, two operations a feature
    factor = 8 * count.operations(places)
    assert line["tflop"] == round((gram + factor) / 1e12, 1)
    assert line["gram_seconds"] == round(gram / 8 / 1e12, 2)
    assert line["factor_seconds"] == round(factor / 8 / 1e12, 2)
    # Half a matrix of n rows takes n^2 / 2 numbers, and all chips have 8 GB.
    assert 0.8 * (8e9 / 4) ** 0.5 < line["largest_n"] < (8e9 / 4) ** 0.5


def test_features_of_a_random_net_are_counted(monkeypatch):
    chip = chips.Chip(1e9, 1e12, 1e15, 1e15, exact_float32=1e12, float64=1e12)
    monkeypatch.setitem(kernel_cost.CHIPS, "cpu", chip)
    filters = "--config.features.num_filters=400", "--config.features.filters_per_block=8"
    line = describe("cifar10+random_conv", "--config.data.num_train=600", *filters)
    assert line["features"] == 18 * 400
    # 27 x 27 patches of 6 x 6 x 3 values, for each image and filter.
    convolutions = 2 * 600 * 27**2 * 108 * 400
    gram = (600**2 * 18 * 400 + convolutions) / 8 / 1e12
    assert line["gram_seconds"] == round(gram, 2)
    assert line["products_seconds"] == round(convolutions / 8 / 1e12, 2)


def tpu(num_chips, kind="TPU v5 lite"):
    device = SimpleNamespace(platform="tpu", device_kind=kind, process_index=0)
    return mock.Mock(spec=jax.sharding.Mesh, size=num_chips, devices=np.array([device] * num_chips))


def test_a_tpus_host_solves_a_system_in_float64(monkeypatch):
    """The whole of MNIST on eight v5e chips: 15 GB and n^3 / 3 operations on the host."""
    monkeypatch.setattr(kernel_cost, "Mesh", lambda devices, axes: _named(tpu(8), axes))
    config = cli.parse_config(["--config=configs/table3.py:mnist"])
    line = kernel_cost.describe(config, tpu(8))
    assert (line["host_cores"], line["host_memory_gb"], line["fits"]) == (224, 384, True)
    assert 15 < line["host_gb"] < 25
    assert line["factor_seconds"] == pytest.approx(60_000**3 / 3 / (224 * 20e9), abs=0.01)
    monkeypatch.setitem(chips.HOSTS, "TPU v5 lite", {4: chips.Host(24, 10e9)})
    assert kernel_cost.describe(config, tpu(8))["fits"] is False


def _named(mesh, axes):
    mesh.axis_names = axes
    return mesh


def test_what_is_not_counted_is_refused():
    with pytest.raises(InputError, match="random centers is not counted"):
        describe("mnist+random_centers")
    with pytest.raises(InputError, match="18 features cannot interpolate"):
        describe("cifar10+random_conv", "--config.features.num_filters=1")
    command = module("launch.compile")
    config = cli.parse_config(["--config=configs/table3.py:mnist"])
    flag = mock.Mock(value=True)
    with (
        mock.patch.object(command, "_LARGEST_BATCH", flag),
        pytest.raises(InputError, match="largest_n"),
    ):
        command._describe(config, sharding.device_mesh(0))
