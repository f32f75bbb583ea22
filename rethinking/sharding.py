"""The mesh of devices of a run, programs that run on all of them, and arrays placed on them."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rethinking import accelerator, paths, provenance
from rethinking.errors import InputError

# The mesh axis along which a batch is split.
DATA_AXIS = "data"


def use_compilation_cache(with_scopes: bool = False) -> None:
    """Keeps compiled programs in the user's cache folder.

    $JAX_COMPILATION_CACHE_DIR names another folder. `with_scopes` takes only programs from it that
    have the scopes and lines of the present code, for a profile.

    Each number of cores has its own folder. XLA divides a CPU program's loops among the cores that
    the process may use, but the cache key does not include their number. A program compiled for one
    core ran 15% slower on two cores.
    """
    if not jax.config.jax_compilation_cache_dir:
        folder = paths.cache() / "rethinking" / f"xla_{provenance.usable_cores()}_cores"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_include_metadata_in_key", with_scopes)


def device_mesh(num_devices: int, axis_name: str = DATA_AXIS) -> Mesh:
    """A mesh with one axis over the first `num_devices` devices; 0 means all devices.

    Raises InputError if there are fewer devices, or if several processes do not use all of them.
    """
    devices = all_devices()
    count = num_devices or len(devices)
    if count > len(devices):
        raise InputError(
            f"num_devices={count}: this machine has {len(devices)} {devices[0].platform} devices. "
            "Choose a smaller number, or 0 for all devices."
        )
    if jax.process_count() > 1 and count < len(devices):
        raise InputError(
            f"num_devices={count}: several processes must use all {len(devices)} devices. "
            "Set num_devices=0."
        )
    return Mesh(np.array(devices[:count]), (axis_name,))


def all_devices() -> list[jax.Device]:
    """The devices of all processes.

    Raises InputError if JAX finds none, or if it would leave an accelerator of this machine idle.
    """
    try:
        devices = jax.devices()
    except (AssertionError, RuntimeError) as error:  # JAX raises either, and the first has no text
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).splitlines()[0] if str(error) else "no device was found"
        if not platforms:
            raise InputError(
                f"JAX cannot start a device ({reason}). `python -m launch.doctor` says more. "
                "JAX_PLATFORMS=cpu lets you compute on the CPU."
            ) from None
        raise InputError(
            f"JAX_PLATFORMS={platforms}: JAX cannot use these devices ({reason}). Unset "
            "JAX_PLATFORMS, set it to cpu, or install the extra of the accelerator: "
            "pip install -e '.[gpu]'"
        ) from None
    accelerator.require_use(devices[0].platform, jax.config.jax_platforms)
    return devices


def require_memory(mesh: Mesh, size: int, what: str, remedies: str) -> None:
    """Raises InputError, with numbers and remedies, unless each device has `size` bytes of memory.

    CPU devices share the free memory of this machine.
    """
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    stats = local[0].memory_stats() if local else None
    if stats and "bytes_limit" in stats:
        _require_bytes(size, stats["bytes_limit"], what, remedies)
    else:
        require_host_memory(size * len(local), what, remedies)


def require_host_memory(size: int, what: str, remedies: str) -> None:
    """Raises InputError, with numbers and remedies, unless this machine has `size` free bytes."""
    _require_bytes(size, psutil.virtual_memory().available, what, remedies)


def _require_bytes(needed: int, there: int, what: str, remedies: str) -> None:
    if needed > there:
        raise InputError(
            f"{what} takes {needed / 1e9:,.1f} GB of memory, but there are only "
            f"{there / 1e9:,.1f} GB. Remedies: {remedies}."
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """`tree` with a copy of each array on every device of `mesh`."""
    if jax.process_count() > 1:
        # JAX would make too many shards of an array on a device, and Orbax cannot save those.
        tree = jax.device_get(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """This process's rows of a batch that the devices of `mesh` share."""
    pieces = _by_rows(mesh).addressable_devices_indices_map((batch_size,)).values()
    return slice(
        min(piece[0].start or 0 for piece in pieces),
        max(piece[0].stop or batch_size for piece in pieces),
    )


def split(tree: Any, mesh: Mesh) -> Any:
    """`tree` with each array split along its first axis over the devices of `mesh`.

    Each process passes its own rows of the arrays: see `local_rows`.
    """
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(_by_rows(mesh), array), tree
    )


def _by_rows(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def varying(tree: Any, axis_name: str) -> Any:
    """`tree`, marked as arrays that may differ between the devices along `axis_name`.

    For use within `jax.shard_map`, where arrays that start equal become different, as in a sum over
    each device's own examples.
    """
    return lax.pcast(tree, axis_name, to="varying")


def _is_same_count(array: Any) -> bool:
    """Whether an array holds whole numbers that are known to be the same on every device."""
    is_real = jnp.issubdtype(array.dtype, jnp.inexact)
    return not is_real and DATA_AXIS not in jax.typeof(array).manual_axis_type.varying


class DataParallel:
    """Runs a function on every device of a mesh, each with its own part of the batch.

    The methods `index`, `sum`, `mean` and `varying` are for use within such a function. On a mesh
    of one device they communicate nothing: XLA would copy every gradient to sum it over one device.
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
        """`function`, compiled to run on every device; it returns replicated arrays.

        The arrays of the arguments `split_argnums` are split over the devices along their first
        axis. All other arguments are replicated. The buffers of the arguments `donate_argnums` are
        reused.
        """
        if self.axis_name is None:
            return jax.jit(function, donate_argnums=donate_argnums)

        def on_every_device(*args):
            specs = []
            for i in range(len(args)):
                specs.append(PartitionSpec(DATA_AXIS) if i in split_argnums else PartitionSpec())
            mapped = jax.shard_map(
                function, mesh=self.mesh, in_specs=tuple(specs), out_specs=PartitionSpec()
            )
            return mapped(*args)

        return jax.jit(on_every_device, donate_argnums=donate_argnums)

    def index(self) -> jax.Array | int:
        """The number of the device that runs this, from 0."""
        return lax.axis_index(DATA_AXIS) if self.axis_name else 0

    def sum(self, tree: Any) -> Any:
        """`tree` with the sum over the devices in place of each array."""
        return lax.psum(tree, DATA_AXIS) if self.axis_name else tree

    def mean(self, tree: Any) -> Any:
        """`tree` with the mean over the devices in place of each array.

        Whole numbers that are the same on every device stay whole numbers.
        """
        if not self.axis_name:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        differing = [i for i, leaf in enumerate(leaves) if not _is_same_count(leaf)]
        means = lax.pmean([leaves[i] for i in differing], DATA_AXIS)
        for i, mean in zip(differing, means, strict=True):
            leaves[i] = mean
        return jax.tree.unflatten(structure, leaves)

    def varying(self, tree: Any) -> Any:
        """`tree`, marked as arrays that may differ between the devices: see `varying`."""
        return varying(tree, DATA_AXIS) if self.axis_name else tree
