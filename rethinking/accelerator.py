"""Finds the GPUs and TPUs of this machine without JAX, and refuses to leave them idle.

If JAX cannot use a card, it computes on the CPU, at most with a warning. A run would then take a
hundred times as long. `require_use` refuses that.
"""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from rethinking.errors import InputError

# By CUDA version: the extra of this project, the oldest driver, and the oldest compute capability.
# https://docs.jax.dev/en/latest/installation.html and the release notes of CUDA 12 and 13.
CUDA = {13: ("gpu", 580, 7.5), 12: ("cuda12", 525, 5.2)}
# Variables by which Slurm says which cards, or how many, it has granted to a job or a step.
_GRANTED = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")
# Values of CUDA_VISIBLE_DEVICES that hide all cards from a program.
HIDDEN = ("", "-1", "NoDevFiles", "none", "void")
# Google's number as a vendor of PCI cards, and its numbers of TPUs, as in jax/_src/hardware_utils.
_GOOGLE = "0x1ae0"
_TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")
ASK_DOCTOR = "`python -m launch.doctor` shows the reason."
_PCI = pathlib.Path("/sys/bus/pci/devices")


class Card(NamedTuple):
    """An NVIDIA card, as nvidia-smi describes it. A value is None if nvidia-smi does not say it."""

    name: str
    driver: str
    capability: float | None  # compute capability, such as 9.0
    total: int | None  # bytes of memory
    free: int | None

    @property
    def driver_branch(self) -> int:
        """The first number of the driver's version; 0 if it is not known."""
        first = self.driver.partition(".")[0]
        return int(first) if first.isdecimal() else 0


def cards() -> list[Card]:
    """The NVIDIA cards that nvidia-smi finds, whether JAX can use them or not."""
    if not shutil.which("nvidia-smi"):
        return []
    fields = ["name", "driver_version", "memory.total", "memory.free", "compute_cap"]
    answer = _ask(fields) or _ask(fields[:-1])  # drivers before 510 know no compute_cap
    found = []
    for line in (answer or "").splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) >= 4:
            name, driver, total, free, *capability = values
            mebibytes = [_number(total), _number(free)]
            memory = [None if size is None else int(size * 2**20) for size in mebibytes]
            found.append(Card(name, driver, _number("".join(capability)), *memory))
    return found


def _ask(fields: list[str]) -> str | None:
    """The answer of nvidia-smi; None if it fails. It then prints a sentence instead of values."""
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # such as [N/A]
        return None


def num_tpus(pci: pathlib.Path | None = None) -> int:
    """The number of TPU chips of this machine."""
    found = 0
    for device in (pci or _PCI).glob("*"):
        try:
            vendor, model = ((device / name).read_text().strip() for name in ("vendor", "device"))
        except OSError:
            continue
        found += vendor == _GOOGLE and model in _TPUS
    return found


def granted_by_slurm(environment: Mapping[str, str] = os.environ) -> str:
    """The variable in which Slurm says that it granted cards, with its value; "" if there is none.

    SLURM_JOB_GPUS=0 is the card with the number 0, but SLURM_GPUS_ON_NODE=0 is no card.
    """
    for name in _GRANTED:
        value = environment.get(name, "")
        if value and (name, value) != ("SLURM_GPUS_ON_NODE", "0"):
            return f"{name}={value}"
    return ""


def cuda_plugins() -> dict[int, str]:
    """The installed plugins of JAX for NVIDIA cards: CUDA version -> version of the plugin."""
    found = {}
    for cuda in CUDA:
        version = installed(f"jax-cuda{cuda}-plugin")
        if version:
            found[cuda] = version
    return found


def installed(package: str) -> str | None:
    """The version of an installed package; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def fitting_cuda(card: Card) -> int | None:
    """The newest CUDA that a card and its driver can run; None if both are too old."""
    for cuda, (_, driver, capability) in CUDA.items():
        if card.driver_branch >= driver and (card.capability or capability) >= capability:
            return cuda
    return None


def idle(environment: Mapping[str, str] = os.environ) -> str | None:
    """The accelerator that is idle if JAX computes on the CPU here, with the cause and the remedy.

    None if there is no accelerator, or if JAX_PLATFORMS or CUDA_VISIBLE_DEVICES excludes it.
    """
    if environment.get("JAX_PLATFORMS"):
        return None
    granted = granted_by_slurm(environment)
    is_hidden = environment.get("CUDA_VISIBLE_DEVICES", "all") in HIDDEN
    there = [] if is_hidden and not granted else cards()
    if there:
        model = f"{len(there)} x {there[0].name}" if len(there) > 1 else there[0].name
        return f"nvidia-smi finds {model} (driver {there[0].driver}). {cause(there[0])}"
    if granted:
        return (
            f"Slurm granted GPUs ({granted}), but nvidia-smi finds none on {os.uname().nodename}. "
            "Start the program with srun --gpus=N, or ask the administrators of the cluster."
        )
    tpus = num_tpus()
    if tpus:
        return f"this machine has {tpus} TPU chips. {_cause_on_tpu()}"
    return None


def cause(card: Card) -> str:
    """Why JAX cannot use an NVIDIA card, and what to install."""
    fitting, plugins = fitting_cuda(card), cuda_plugins()
    if fitting is None:
        return (
            f"The driver is too old: CUDA 12 needs {CUDA[12][1]} or newer. Install a newer driver."
        )
    install = f'pip install -e ".[{CUDA[fitting][0]}]"'
    if not plugins:
        return f"JAX is installed without CUDA. Install it: {install}"
    present = max(plugins)
    if present > fitting:
        _, driver, capability = CUDA[present]
        return (
            f"CUDA {present} needs driver {driver} and compute capability {capability:g}, or newer "
            f"ones. Change to CUDA {fitting}: pip uninstall -y jax-cuda{present}-plugin "
            f"jax-cuda{present}-pjrt && {install}"
        )
    jaxlib = installed("jaxlib")
    if plugins[present] != jaxlib:
        return (
            f"JAX ignores its plugin for CUDA: version {plugins[present]} does not fit jaxlib "
            f"{jaxlib}. Install the one that fits: {install}"
        )
    return (
        "JAX cannot start the card, although the versions fit. Install the plugin again: "
        f"pip install --force-reinstall jax-cuda{present}-plugin=={jaxlib} "
        f"jax-cuda{present}-pjrt=={jaxlib} . {ASK_DOCTOR}"
    )


def _cause_on_tpu() -> str:
    if installed("libtpu") is None:
        return 'JAX is installed without libtpu. Install it: pip install -e ".[tpu]"'
    return (
        "JAX cannot start them. Another process may use them, for instance an earlier run. "
        f"{ASK_DOCTOR}"
    )


def require_use(platform: str, chosen: str | None) -> None:
    """Raises InputError if JAX chose the CPU by itself although there is an accelerator.

    `platform` is that of JAX's devices, and `chosen` is `jax.config.jax_platforms`.
    """
    if platform != "cpu" or chosen:
        return
    reason = idle()
    if reason:
        raise InputError(
            f"JAX would compute on the CPU. If you want that, set JAX_PLATFORMS=cpu. But {reason}"
        )
