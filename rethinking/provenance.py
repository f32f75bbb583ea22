"""Where a run comes from: device, precision, drivers, number of cores, and revision of the code."""

import contextlib
import functools
import hashlib
import importlib.metadata
import math
import os
import pathlib
import socket
import subprocess
from typing import Any

from rethinking import accelerator

# NVIDIA cards multiply float32 numbers as TensorFloat-32 from this compute capability on (Ampere).
_TF32_FROM = 8.0

_CPU_LIMIT = pathlib.Path("/sys/fs/cgroup/cpu.max")


def device_name() -> str:
    """The name of the accelerator, or of the processor with the number of usable cores."""
    import jax  # here, because commands that only read runs need no JAX

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = usable_cores()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    plural = "" if cores == 1 else "s"
    return f"cpu: {names[0] if names else 'unknown'}, {cores} core{plural}"


def numerics() -> dict[str, Any]:
    """What the last digits of a run depend on, beside its device, as fields of result.json.

    `matmul_precision` is JAX's setting. With "default", a product of float32 numbers has the
    precision `float32_products`. Versions are those of the accelerator's software, or None.
    """
    import jax

    platform = jax.default_backend()
    return {
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "float32_products": float32_products(jax.devices()[0]),
        "xla_flags": os.environ.get("XLA_FLAGS") or None,
        **(_nvidia() if platform == "gpu" else {"driver": None, "cuda": None, "cudnn": None}),
        "libtpu": accelerator.installed("libtpu") if platform == "tpu" else None,
    }


def float32_products(device: Any) -> str:
    """How a device of JAX multiplies float32 numbers, unless a program asks for more precision.

    "tf32" and "bfloat16" round the factors to 10 and 7 bits of mantissa. Sums are in float32.
    """
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform == "gpu" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        try:
            has_tf32 = float(device.compute_capability) >= _TF32_FROM
        except (AttributeError, ValueError):  # a card of another vendor
            has_tf32 = False
        if has_tf32:
            return "tf32"
    return "float32"


def _nvidia() -> dict[str, str | None]:
    """The versions of NVIDIA's driver, CUDA and cuDNN in this process."""
    # JAX has no public name for this module. It is None without CUDA.
    from jax._src.lib import cuda_versions

    cards = accelerator.cards()
    found: dict[str, str | None] = {"driver": cards[0].driver if cards else None}
    # CUDA writes 13.1 as 13010, and cuDNN writes 9.12.0 as 91200.
    for name, ask, unit in (
        ("cuda", "cuda_runtime_get_version", 1000),
        ("cudnn", "cudnn_get_version", 10000),
    ):
        found[name] = None
        with contextlib.suppress(Exception):  # the libraries may be missing or too old
            version = getattr(cuda_versions, ask)()
            found[name] = f"{version // unit}.{version % unit // (unit // 100)}"
    return found


def usable_cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def granted_cores() -> int:
    """`usable_cores`, or fewer if a container or a cluster limits their time (cgroup v2)."""
    try:
        quota, period = _CPU_LIMIT.read_text().split()
        granted = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or no limit: "max 100000"
        return usable_cores()
    return max(1, min(granted, usable_cores()))


def place() -> str:
    """The host and the cores that this process may use, as a text that is the same for both."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    host = boot.read_text().strip() if boot.exists() else socket.gethostname()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "all"
    return f"{host}: {cores}"


@functools.cache
def revision() -> str:
    """The git commit of the running code, with `-dirty` if files differ from it.

    Outside git: the version and a hash of the source. Later calls repeat the answer of the first,
    because files may change during a long run.
    """
    package = pathlib.Path(__file__).parent
    command = [
        "git",
        "-C",
        str(package),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        "--abbrev=12",
    ]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tracked = ["git", "-C", str(package), "ls-files", "--error-unmatch", __file__]
        subprocess.run(tracked, capture_output=True, check=True)
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    try:
        version = importlib.metadata.version("rethinking")
    except importlib.metadata.PackageNotFoundError:
        version = "uninstalled"
    return f"{version}+source.{source_digest()}"


@functools.cache
def source_digest() -> str:
    """Twelve hex digits that change with every file of this package."""
    source = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        source.update(file.read_bytes())
    return source.hexdigest()[:12]
