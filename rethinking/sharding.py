"""Devices: the mesh that a batch is spread over, the programs that run on it, and putting arrays on it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
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


class DataParallel:
    """Runs one function on every device of a mesh, each on its part of the batch, and what they say to each other.

    On a mesh of one device nothing is said: XLA would keep a sum over one device as a copy of every gradient.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.size = mesh.size
        self.axis_name = DATA_AXIS if mesh.size > 1 else None

    def compile(self, function: Callable, donate_argnums: tuple[int, ...] = ()) -> Callable:
        """`function` of replicated arrays, returning replicated arrays, jitted to run on every device."""
        if self.axis_name:
            replicated = PartitionSpec()
            function = jax.shard_map(function, mesh=self.mesh, in_specs=replicated, out_specs=replicated)
        return jax.jit(function, donate_argnums=donate_argnums)

    def index(self) -> jax.Array | int:
        """Which of the devices runs this, from 0."""
        return lax.axis_index(DATA_AXIS) if self.axis_name else 0

    def sum(self, tree: Any) -> Any:
        """The sum over devices of every array."""
        return lax.psum(tree, DATA_AXIS) if self.axis_name else tree

    def mean(self, tree: Any) -> Any:
        """The mean over devices of every array."""
        return lax.pmean(tree, DATA_AXIS) if self.axis_name else tree

    def varying(self, tree: Any) -> Any:
        """Marks arrays equal on all devices as free to become different: the start of a loop over own batches."""
        return lax.pcast(tree, DATA_AXIS, to="varying") if self.axis_name else tree
