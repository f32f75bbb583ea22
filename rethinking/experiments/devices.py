"""The devices of a run: how many it uses, and which ones they are."""

import os

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import sharding

# The variables that hide devices from a process, by JAX's platform. Each has a list of names.
VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}


def count(config: ConfigDict) -> int:
    """The number of devices that the run of `config` uses: `config.num_devices`, if it is not 0.

    A network that trains on data in memory has one device by default. On several, batch norm would
    see a smaller part of each batch, and the run would be another experiment. Everything else, and
    a run of several processes, has all devices.
    """
    if config.num_devices:
        return config.num_devices
    there = sharding.all_devices()  # first, because it explains why JAX has no devices
    if keeps_data(config) and jax.process_count() == 1:
        return 1
    return len(there)


def keeps_data(config: ConfigDict) -> bool:
    """Whether the run trains a network on data that the devices keep (resident.py)."""
    return config.kind == "complexity" or (config.kind == "training" and not config.data.stream)


def mesh(config: ConfigDict) -> Mesh:
    """A mesh over the devices of the run. Raises InputError as `sharding.device_mesh` does."""
    return sharding.device_mesh(count(config))


def names(config: ConfigDict) -> list[str]:
    """The names of the run's devices, such as ["gpu:2", "gpu:3"].

    The number is the one in the variable that made the device visible. Without such a variable, and
    for several processes, it is JAX's number.
    """
    devices = sharding.all_devices()
    platform = devices[0].platform
    visible = os.environ.get(VISIBLE.get(platform, ""), "").split(",")
    if jax.process_count() > 1 or len(visible) != len(devices) or not all(visible):
        visible = [str(device.id) for device in devices]
    return [f"{platform}:{name.strip()}" for name in visible[: count(config)]]
