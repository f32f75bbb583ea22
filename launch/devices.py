"""The devices of this machine, and how several runs at once share them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from launch.jobs import Job
from rethinking import accelerator, chips
from rethinking.errors import InputError, require

# The part of a GPU's memory that several runs on it take together.
_MEMORY = 0.9
# JAX takes the first of these; the second one is its old name. It refuses both at once.
_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_NO = ("false", "False", "0")
_FAKE = "--xla_force_host_platform_device_count="
# libtpu of each process listens on a port of its own, from this one on.
_FIRST_TPU_PORT = 8476


@dataclasses.dataclass(frozen=True)
class Shares:
    """How several runs at once share the devices."""

    environments: list[dict[str, str]]  # the variables that give each run its devices
    per_run: int | None  # devices of each run; None if nobody knows how many devices there are
    there: str  # the devices in words, such as "8 GPUs"

    def check(self, num_devices: int) -> None:
        """Raises InputError for a run with more devices than its share."""
        if self.per_run is not None and num_devices > self.per_run:
            raise InputError(
                f"config.num_devices={num_devices}: with --parallel={len(self.environments)}, each "
                f"run has {self.per_run} of the {self.there}. Choose a smaller number, or fewer "
                "runs at once."
            )


def share(parallel: int, environment: Mapping[str, str]) -> Shares:
    """How `parallel` runs at once share the devices that `environment` leaves visible.

    Each run gets the same number of GPUs. With more runs than GPUs, several runs share a GPU, and
    each gets a part of its memory. On TPUs, each run gets one chip. Fake CPU devices are divided
    evenly. Raises InputError if there are too few TPU chips, or if the user's setting of the memory
    gives several runs on a GPU more than all of it.
    """
    gpus = visible_gpus(environment)
    if gpus:
        return _share_gpus(parallel, gpus, environment)
    tpus = visible_chips(environment) if _sees_tpus(environment) else []
    if tpus:
        return _share_chips(parallel, tpus)
    fake = re.findall(rf"{_FAKE}(\d+)", environment.get("XLA_FLAGS", ""))
    if fake:
        per_run = max(1, int(fake[-1]) // parallel)
        variables = [fake_devices(per_run, environment)] * parallel
        return Shares(variables, per_run, f"{fake[-1]} fake CPU devices")
    # There may be an accelerator of an unknown kind. JAX ignores the variable on a CPU.
    memory = {} if _given(environment) else _part_of_memory(parallel)
    return Shares([memory] * parallel, None, "devices")


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The names of the NVIDIA GPUs that JAX would use, as in CUDA_VISIBLE_DEVICES."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not re.search("cuda|gpu", platforms):
        return []
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return [str(number) for number in range(len(accelerator.cards()))]
    names = [name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",")]
    # CUDA ignores the first invalid name and all that follow. To hide all, users write -1.
    hidden = [number for number, name in enumerate(names) if name in accelerator.HIDDEN]
    return names[: hidden[0] if hidden else len(names)]


def kind(environment: Mapping[str, str]) -> str | None:
    """JAX's name of the first visible accelerator, found without JAX; None without one."""
    visible = visible_gpus(environment)
    if visible:
        names = [card.name for card in accelerator.cards()]
        first = int(visible[0]) if visible[0].isdecimal() else 0
        return names[first] if first < len(names) else "the GPU at hand"
    if not _sees_tpus(environment) or not visible_chips(environment):
        return None
    # JAX asks the same function. It has no public name.
    from jax._src import hardware_utils

    version = hardware_utils.num_available_tpu_chips_and_device_id()[1]
    return chips.SHORT_NAMES.get(getattr(version, "name", ""), "the TPU at hand")


def _sees_tpus(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS", "")
    return not platforms or "tpu" in platforms


def visible_chips(environment: Mapping[str, str]) -> list[str]:
    """The numbers of the TPU chips of this host that JAX would use."""
    for variable in ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"):
        if environment.get(variable):
            return environment[variable].split(",")
    return [str(chip) for chip in range(accelerator.num_tpus())]


def fake_devices(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that give a process `count` fake CPU devices."""
    # Of two equal flags, XLA takes the last one.
    xla_flags = f"{environment.get('XLA_FLAGS', '')} {_FAKE}{count}".strip()
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags}


def idle(jobs: Sequence[Job], parallel: int, environment: Mapping[str, str]) -> str:
    """A warning about GPUs that no run of the sweep uses; "" if the sweep uses all."""
    gpus = len(visible_gpus(environment))
    at_once = min(parallel, len(jobs))
    configs = [job.config for job in jobs]
    if gpus < 2 or not jobs or not all(_takes_one(config) for config in configs):
        return ""
    used = at_once * max(1, *(config.num_devices for config in configs))
    if used >= gpus:
        return ""
    return (
        f"{gpus - used} of the {gpus} GPUs are idle. A run on data in memory uses one GPU by "
        "default. To make N runs at once, add --parallel=N."
    )


def _takes_one(config: ConfigDict) -> bool:
    """Whether a run uses one device unless `config.num_devices` asks for more."""
    kinds = ("training", "complexity")
    return bool(config.num_devices) or (config.kind in kinds and not config.data.stream)


def _share_gpus(parallel: int, gpus: Sequence[str], environment: Mapping[str, str]) -> Shares:
    per_run = max(1, len(gpus) // parallel)
    runs_per_gpu = -(-parallel // len(gpus))
    memory = _memory(runs_per_gpu, environment) if runs_per_gpu > 1 else {}
    variables = []
    for number in range(parallel):
        first = number * per_run % len(gpus)
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first : first + per_run])}
        if "CUDA_VISIBLE_DEVICES" not in environment:
            # By default CUDA may number the cards in another order than nvidia-smi.
            visible["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        variables.append(visible | memory)
    return Shares(variables, per_run, f"{len(gpus)} GPUs")


def _share_chips(parallel: int, tpus: Sequence[str]) -> Shares:
    require(
        parallel <= len(tpus),
        f"--parallel={parallel}: this host has {len(tpus)} TPU chips, and two processes cannot "
        f"share a chip. Choose at most {len(tpus)}.",
    )
    variables = []
    for number in range(parallel):
        port = _FIRST_TPU_PORT + number
        variables.append(
            {
                "TPU_VISIBLE_CHIPS": tpus[number],
                "TPU_VISIBLE_DEVICES": tpus[number],
                "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
                "TPU_PROCESS_PORT": str(port),
                "CLOUD_TPU_TASK_ID": "0",
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            }
        )
    return Shares(variables, 1, f"{len(tpus)} TPU chips")


def _memory(runs: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that gives each of several runs on a GPU its part of the memory.

    A user's own variable stays as it is. Raises InputError if the runs would take more than all.
    """
    given = _given(environment)
    if not given:
        return _part_of_memory(runs)
    require(
        len(given) == 1,
        f"{' and '.join(given)} are both set, but JAX takes only one. Unset {given[-1]}.",
    )
    shown = f"{given[0]}={environment[given[0]]}"
    try:
        fraction = float(environment[given[0]])
    except ValueError:
        raise InputError(f"{shown}: must be a number, such as 0.4.") from None
    takes_at_once = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "") not in _NO
    require(
        fraction * runs <= 1 or not takes_at_once,
        f"{shown}: {runs} runs at once share a GPU, and each would take this part of its memory. "
        f"Choose at most {1 / runs:.2f}, or unset {given[0]}.",
    )
    return {}


def _given(environment: Mapping[str, str]) -> list[str]:
    """The variables by which the user has set the part of the memory."""
    return [name for name in _FRACTIONS if environment.get(name)]


def _part_of_memory(runs: int) -> dict[str, str]:
    return {_FRACTIONS[0]: f"{_MEMORY / runs:.3f}"}
