"""Where a run comes from: the device, the number of cores, and the revision of the code."""

import contextlib
import functools
import hashlib
import importlib.metadata
import math
import os
import pathlib
import socket
import subprocess

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
    source = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        source.update(file.read_bytes())
    try:
        version = importlib.metadata.version("rethinking")
    except importlib.metadata.PackageNotFoundError:
        version = "uninstalled"
    return f"{version}+source.{source.hexdigest()[:12]}"
