"""What result.json says of precision and drivers."""

import os
import types

import jax
import pytest
from jax._src import lib

from rethinking import provenance
from tests.stand_ins import put_nvidia_smi


def device(platform, capability=None):
    found = types.SimpleNamespace(platform=platform)
    if capability:
        found.compute_capability = capability
    return found


@pytest.mark.parametrize(
    "platform, capability, override, products",
    [
        ("cpu", None, None, "float32"),
        ("tpu", None, None, "bfloat16"),
        ("gpu", "7.5", None, "float32"),  # Turing has no TensorFloat-32
        ("gpu", "8.0", None, "tf32"),
        ("gpu", "9.0", "0", "float32"),
        ("gpu", "gfx942", None, "float32"),
    ],
)
def test_the_platform_decides_how_float32_numbers_are_multiplied(
    platform, capability, override, products, monkeypatch
):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert provenance.float32_products(device(platform, capability)) == products


def test_a_processor_has_no_driver_and_multiplies_exactly():
    assert provenance.numerics() == {
        "matmul_precision": "default",
        "float32_products": "float32",
        "xla_flags": os.environ["XLA_FLAGS"],
        "driver": None,
        "cuda": None,
        "cudnn": None,
        "libtpu": None,
    }
    with jax.default_matmul_precision("highest"):
        assert provenance.numerics()["matmul_precision"] == "highest"


def test_a_card_has_the_versions_of_driver_cuda_and_cudnn(monkeypatch, tmp_path):
    put_nvidia_smi(tmp_path, ("NVIDIA H100", "9.0", 79), driver="580.65.06")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    versions = {"cuda_runtime_get_version": lambda: 13010, "cudnn_get_version": lambda: 91200}
    monkeypatch.setattr(lib, "cuda_versions", types.SimpleNamespace(**versions))
    assert provenance._nvidia() == {"driver": "580.65.06", "cuda": "13.1", "cudnn": "9.12"}
    monkeypatch.setattr(lib, "cuda_versions", None)
    assert provenance._nvidia() == {"driver": "580.65.06", "cuda": None, "cudnn": None}
