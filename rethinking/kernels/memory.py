"""The memory that a system takes, and the check that it is free."""

import psutil

from rethinking.errors import InputError
from rethinking.kernels.backend import Backend


def needed(backend: Backend, num_outputs: int, num_features: int) -> int:
    """Bytes that each device needs: the factor, one panel's work, examples, right-hand sides."""
    layout, itemsize = backend.layout, backend.dtype.itemsize
    rows = layout.size // layout.num_devices
    vectors = rows * (num_features + 6 * num_outputs) * 8
    return layout.entries * itemsize + backend.working_bytes + vectors


def require(backend: Backend, num_outputs: int, num_features: int) -> None:
    """Raises InputError, with the numbers and the remedies, if a memory has too little space."""
    layout = backend.layout
    per_device = needed(backend, num_outputs, num_features)
    for name, num_devices, free in backend.memories():
        if per_device * num_devices <= free:
            continue
        remedies = ["fewer examples"]
        if layout.num_devices > 1 or name != "this machine":
            remedies.append("more devices")
        if backend.dtype.itemsize == 8:
            remedies.append('dtype="float32"')
        in_all = per_device * layout.num_devices
        raise InputError(
            f"a system of n = {layout.n} examples in {backend.dtype} takes "
            f"{per_device / 1e9:.1f} GB on each of {layout.num_devices} devices, "
            f"{in_all / 1e9:.1f} GB in all. The memory of {name} serves {num_devices} of them and "
            f"has {free / 1e9:.1f} GB free. Remedies: {', '.join(remedies)}."
        )


def require_on_host(what: str, size: float, remedies: str) -> None:
    """Raises InputError, with numbers and remedies, unless this machine has `size` bytes free."""
    free = psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"{what} takes {size / 1e9:.2f} GB of memory, and this machine has {free / 1e9:.2f} GB "
            f"free. Remedies: {remedies}."
        )
