"""What a kernel system costs each chip: compiled for chips without having them, and counted."""

import time
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import chips
from rethinking.chips import CHIPS, FULL_FLOAT32, Chip, Host
from rethinking.errors import require
from rethinking.experiments import kernel_backend, work
from rethinking.experiments.compiled_tiles import compile_system
from rethinking.experiments.kernel_backend import Size
from rethinking.kernels import cholesky, count, memory, threads
from rethinking.kernels.backend import Backend
from rethinking.kernels.sharded import ShardedBackend

# How often the solution is multiplied by the matrix in float64: once for the residual, and once for
# each refinement. We assume that a float32 factor takes three.
PRODUCTS = {"float64": 1, "float32": 4}


def describe(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """What the system of a row of Table 3 costs: bytes of each chip and host, work, and seconds.

    It compiles the programs of the solve. On a single CPU device, and in float64 on TPUs, it only
    counts, because the BLAS of the host solves the system there. For a chip that is not known,
    there are no seconds.

    Raises InputError for a system that no functions can solve, and for random centers.
    """
    require(
        not config.random_centers,
        f"config.random_centers={config.random_centers}: a system with random centers is not "
        "counted here. Set it to 0.",
    )
    start = time.perf_counter()
    size = kernel_backend.size(config, work.describe(config))
    backend = cholesky.make_backend(size.n, config.dtype, Mesh(mesh.devices, ("rows",)))
    kind = mesh.devices.flat[0].device_kind
    line = {
        "row": config.row,
        "chips": mesh.size,
        "chip": kind,
        "n": size.n,
        "features": size.num_features,
        "dtype": config.dtype,
    }
    system = None
    if isinstance(backend, ShardedBackend):
        system = compile_system(backend, size, config)
        line |= {
            "compile_seconds": round(time.perf_counter() - start, 1),
            "matrix_gb": round(system.matrix / 1e9, 4),
            "temporary_gb": round((system.total - system.matrix) / 1e9, 4),
            "total_gb": round(system.total / 1e9, 4),
        }
        if system.launches:
            line["launches"] = system.launches
    chip, host = CHIPS.get(kind), chips.host(kind, mesh.size)
    needed = _needed(backend, size, host)
    line["host_gb"] = round(needed[1] / 1e9, 2)
    line["tflop"] = round(_operations(backend, size) / 1e12, 1)
    if chip is None:
        return line
    on_chip = 0 if system is None else system.total
    line["fits"] = _fits((on_chip, needed[1]), chip, host)
    line["memory_gb"] = chip.memory * chip.usable / 1e9
    if host is not None:
        line |= {"host_cores": host.cores, "host_memory_gb": host.memory / 1e9}
    copies = 2 if system is not None and system.copies_matrix else 1
    line["largest_n"] = _largest_n(backend, size, chip, host, copies)
    return line | _seconds(backend, size, chip, host, 0 if system is None else system.launches)


def _needed(
    backend: Backend, size: Size, host: Host | None, copies: int = 1
) -> tuple[float | int, float | int]:
    """Bytes on each chip and on the host, by count. The chip holds so many copies of the matrix."""
    cores = None if host is None else host.cores
    here = memory.needed(backend, size.num_outputs, size.stored, cores)
    if not isinstance(backend, ShardedBackend):
        return 0, here
    here += (copies - 1) * backend.layout.entries * backend.dtype.itemsize
    return here, memory.needed_on_host(backend, size.num_outputs, size.stored, cores)


def _fits(needed: tuple[float | int, float | int], chip: Chip, host: Host | None) -> bool:
    on_chip, on_host = needed
    return on_chip < chip.memory * chip.usable and (host is None or on_host < host.memory)


def _largest_n(backend: Backend, size: Size, chip: Chip, host: Host | None, copies: int) -> int:
    """The most examples whose system fits, in thousands."""

    def fits(thousands: int) -> bool:
        return _fits(_needed(backend.like(1000 * thousands), size, host, copies), chip, host)

    thousands = 1
    while thousands < 4096 and fits(2 * thousands):
        thousands *= 2
    step = thousands
    while step := step // 2:
        if fits(thousands + step):
            thousands += step
    return 1000 * thousands


def _operations(backend: Backend, size: Size) -> float:
    """Those of the matrix and of its factorization, over all devices."""
    layout = backend.layout
    if isinstance(backend, ShardedBackend):
        factor = layout.num_devices * count.operations(layout)
    else:
        factor = count.least_operations(size.n)
    return _matrix_operations(size) + factor


def _matrix_operations(size: Size) -> int:
    """Half of the matrix, and the features."""
    return count.gram_operations(size.n, size.num_features) + _feature_operations(size)


def _feature_operations(size: Size) -> int:
    """Those of the features of all examples, which every product with the matrix needs anew."""
    if size.conv is None:
        return 0
    return size.n * count.conv_operations(size.conv, size.example_shape)


def _seconds(
    backend: Backend, size: Size, chip: Chip, host: Host | None, launches: int
) -> dict[str, float]:
    """Lower bounds on the seconds of each step, from published rates. They assume `PRODUCTS`."""
    num, dtype = backend.layout.num_devices, str(backend.dtype)
    entries = count.gram_operations(size.n, size.num_features)
    precise_on_devices = isinstance(backend.in_float64(), ShardedBackend)
    if not precise_on_devices and host is None:
        return {}
    if isinstance(backend, ShardedBackend):
        exact = "float64" if dtype == "float64" else FULL_FLOAT32
        features = _feature_operations(size) / num / chip.exact_float32
        gram = entries / num / chip.rate(exact) + features
        itemsize = backend.dtype.itemsize
        accessed = count.numbers_accessed(backend.layout) * itemsize
        factor = max(chip.bounds(exact, count.operations(backend.layout), accessed, launches))
        factor += count.numbers_sent(backend.layout) * itemsize / chip.links
    else:
        gram = _host_product_seconds(size, host)
        factor = count.least_operations(size.n) / (host.cores * chips.CORE_FLOPS)
    if size.conv is not None:
        product = _feature_operations(size) / num / chip.exact_float32
        if not precise_on_devices:
            product += size.n * size.num_features * 4 / chips.HOST_LINK
    elif precise_on_devices:
        product = entries / num / chip.float64
    else:
        product = _host_product_seconds(size, host)
    products = PRODUCTS[dtype] * product
    return {
        "gram_seconds": round(gram, 2),
        "factor_seconds": round(factor, 2),
        "products": PRODUCTS[dtype],
        "products_seconds": round(products, 2),
        "seconds": round(gram + factor + products, 2),
    }


def _host_product_seconds(size: Size, host: Host) -> float:
    """The Gram matrix on a host: BLAS uses all cores, and NumPy the threads of `threads`."""
    operations = count.gram_operations(size.n, size.num_features)
    entries = size.n**2 / 2 * chips.ENTRY_SECONDS / min(host.cores, threads.MOST_THREADS)
    return operations / (host.cores * chips.CORE_FLOPS) + entries
