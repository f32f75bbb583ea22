"""Devices: the mesh that a batch is spread over, the programs that run on it, and putting arrays on it."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rethinking import provenance
from rethinking.errors import InputError

DATA_AXIS = "data"


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another place.

    Each number of cores has a folder of its own. XLA divides a CPU program's loops among the cores that the process may
    use, but ignores them when it looks a program up: one made for a single core ran 15% slower on two.
    """
    if not jax.config.jax_compilation_cache_dir:
        cache = (
            pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rethinking"
        )
        jax.config.update(
            "jax_compilation_cache_dir", str(cache / f"xla_{provenance.usable_cores()}_cores")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def device_mesh(num_devices: int, axis_name: str = DATA_AXIS) -> Mesh:
    """A mesh with the single axis `axis_name` over the first `num_devices` devices; 0 means all devices.

    Raises InputError if there are fewer devices, or if several processes do not use all of them.
    """
    devices = jax.devices()
    count = num_devices or len(devices)
    if count > len(devices):
        raise InputError(
            f"config.num_devices={count}: this machine has {len(devices)} {devices[0].platform} devices"
        )
    if jax.process_count() > 1 and count < len(devices):
        raise InputError(
            f"config.num_devices={count}: with several processes all {len(devices)} devices are used. "
            "Set it to 0."
        )
    return Mesh(np.array(devices[:count]), (axis_name,))


data_mesh = device_mesh


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of every array of `tree` on every device of `mesh`."""
    if (
        jax.process_count() > 1
    ):  # From a device's array JAX makes one with too many shards, which cannot be saved.
        tree = jax.device_get(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """The rows of a batch of `batch_size`, dealt to the devices of `mesh`, that this process's devices get."""
    pieces = _split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return slice(
        min(piece[0].start or 0 for piece in pieces),
        max(piece[0].stop or batch_size for piece in pieces),
    )


def split(tree: Any, mesh: Mesh) -> Any:
    """Deals arrays to the devices of `mesh` along their first axis; each process gives its `local_rows` of them."""
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(_split(mesh), array), tree
    )


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def varying(tree: Any, axis_name: str) -> Any:
    """`tree`, marked as arrays that may differ between the devices along `axis_name`.

    For use within `jax.shard_map`, where arrays that start equal become different, as in a sum over
    each device's own examples.
    """
    return lax.pcast(tree, axis_name, to="varying")


class DataParallel:
    """Runs one function on every device of a mesh, each on its part of the batch, and what they say to each other.

    On a mesh of one device nothing is said: XLA would keep a sum over one device as a copy of every gradient.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.size = mesh.size
        self.axis_name = DATA_AXIS if mesh.size > 1 else None

    def compile(
        self,
        function: Callable,
        donate_argnums: tuple[int, ...] = (),
        split_argnums: tuple[int, ...] = (),
    ) -> Callable:
        """`function` of replicated arrays, returning replicated arrays, jitted to run on every device.

        The arrays of the arguments `split_argnums` are split over the devices along their first axis instead.
        """

        def on_every_device(*args):
            specs = tuple(
                PartitionSpec(*[DATA_AXIS] * (i in split_argnums)) for i in range(len(args))
            )
            return jax.shard_map(
                function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec()
            )(*args)

        return jax.jit(
            on_every_device if self.axis_name else function, donate_argnums=donate_argnums
        )

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
        return varying(tree, DATA_AXIS) if self.axis_name else tree
