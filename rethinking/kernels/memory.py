"""Memory first: what a system takes, and whether it is there, before anything is computed."""

import psutil

from rethinking.errors import InputError
from rethinking.kernels.cholesky import Backend


def needed(backend: Backend, num_outputs: int, num_features: int) -> int:
    """Bytes that each device needs for an n x n system: factor, panel at hand, examples and right-hand sides."""
    layout, itemsize = backend.layout, backend.dtype.itemsize
    rows = layout.size // layout.num_devices
    temporary = backend.working_rows * layout.width * itemsize * 4  # arrays of kernel and update
    vectors = rows * (num_features + 6 * num_outputs) * 8
    return layout.entries * itemsize + temporary + vectors


def require(backend: Backend, num_outputs: int, num_features: int) -> None:
    """Raises InputError, with the numbers and the remedies, if some memory has too little left."""
    layout = backend.layout
    per_device = needed(backend, num_outputs, num_features)
    for name, devices, free in backend.memories():
        if per_device * devices > free:
            remedies = ["fewer examples (config.data.num_train)"]
            remedies += ["more devices"] if layout.num_devices > 1 or name != "this machine" else []
            remedies += ["float32 (config.dtype)"] if backend.dtype.itemsize == 8 else []
            raise InputError(
                f"a system of n = {layout.n} in {backend.dtype} takes {per_device / 1e9:.1f} GB on each of "
                f"{layout.num_devices} devices, {per_device * layout.num_devices / 1e9:.1f} GB in all; {name}, which "
                f"has {devices} of them, has {free / 1e9:.1f} GB free. Remedies: {', '.join(remedies)}."
            )


def require_on_host(what: str, size: float, remedies: str) -> None:
    """Raises InputError, with the numbers and the remedies, if this machine has fewer than `size` bytes free."""
    if size > (free := psutil.virtual_memory().available):
        raise InputError(
            f"{what} takes {size / 1e9:.2f} GB of this machine, which has {free / 1e9:.2f} GB free. "
            f"Remedies: {remedies}."
        )
