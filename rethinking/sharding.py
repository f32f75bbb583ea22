"""Devices: the mesh that a batch is spread over, and putting arrays on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rethinking.config import ConfigError

DATA_AXIS = "data"


def data_mesh(num_devices: int, batch_size: int) -> Mesh:
    """A mesh of one axis, `data`, over the first `num_devices` devices (0: all).

    Raises ConfigError if there are not so many, or if `batch_size` cannot be dealt to them evenly.
    """
    devices = jax.devices()
    count = num_devices or len(devices)
    if count > len(devices):
        raise ConfigError(f"config.num_devices={count}: this machine has {len(devices)} {devices[0].platform} devices")
    if batch_size % count:
        raise ConfigError(f"config.batch_size={batch_size} cannot be split evenly over {count} devices. Choose a "
                          f"multiple of {count}, or set config.num_devices.")
    return Mesh(np.array(devices[:count]), (DATA_AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array of `tree` on every device of `mesh`."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
