"""Meshes of chips that need not exist here, for which XLA can compile all the same."""

import os
import re

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from rethinking import chips, sharding
from rethinking.errors import InputError

# What XLA must know of a GPU to compile for it. From the tables of compute capabilities in NVIDIA's
# CUDA programming guide and from its data sheets.
_CARDS = {
    "a100": {
        "capability": 8,
        "cores": 108,
        "units_per_core": 64,
        "clock": 1.41,
        "level_2_cache": 40 << 20,
        "shared_memory": 164 << 10,
    },
    "h100": {
        "capability": 9,
        "cores": 132,
        "units_per_core": 128,
        "clock": 1.98,
        "level_2_cache": 50 << 20,
        "shared_memory": 228 << 10,
    },
}
_CARDS["h200"] = _CARDS["h100"]
# The same for all these cards, and the versions of CUDA.
_LIMITS = """
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
"""


def make_mesh(topology: str) -> Mesh:
    """A mesh over the chips of `topology`.

    `topology` names GPUs, such as h100, or h100:8 for a node of eight; or TPU chips, such as
    v5e:4x4. Raises InputError if there is no such topology.
    """
    # The devices of this machine do not matter. JAX must not fail because one is missing.
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")
    gpus = re.fullmatch(r"(\w+?)(?::(\d+))?", topology)
    if gpus and gpus[1] in _CARDS:
        devices = _gpus(topology, gpus[1], int(gpus[2] or 1))
    else:
        devices = _tpus(topology)
    return Mesh(np.array(devices), (sharding.DATA_AXIS,))


def _gpus(topology: str, card: str, count: int) -> list[jax.Device]:
    # partitions x hosts x devices
    shape = f"1x1x{count}"
    try:
        return topologies.get_topology_desc(
            shape, platform="cuda", topology=shape, target_config=description(card)
        ).devices
    except Exception as error:  # JAX and XLA raise errors of many kinds.
        raise InputError(
            f"topology {topology}: {_first_line(error)}. To compile for GPUs, install XLA's "
            "compiler for them: pip install -e '.[compile_gpu]'. Its package jax-cuda13-plugin "
            f"must have the version of jax, {jax.__version__}."
        ) from error


def _tpus(topology: str) -> list[jax.Device]:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU host to ask
    try:
        return topologies.get_topology_desc(topology, platform="tpu").devices
    except Exception as error:
        raise InputError(
            f"topology {topology}: {_first_line(error)}. Write GPUs like h100 or h100:8 (known are "
            f"{', '.join(_CARDS)}), and TPU chips like v5e:4x4. The latter need libtpu: "
            "pip install -e '.[compile_tpu]'"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def description(card: str) -> str:
    """XLA's description of a card, as the text of its `GpuTargetConfigProto`."""
    facts, name = _CARDS[card], chips.SHORT_NAMES[card]
    chip = chips.find(card)
    return f"""gpu_device_info {{{_LIMITS}
  cuda_compute_capability {{ major: {facts["capability"]} }}
  core_count: {facts["cores"]}
  fpus_per_core: {facts["units_per_core"]}
  clock_rate_ghz: {facts["clock"]}
  l2_cache_size: {facts["level_2_cache"]}
  shared_memory_per_core: {facts["shared_memory"]}
  shared_memory_per_block_optin: {facts["shared_memory"] - 1024}
  memory_bandwidth: {int(chip.bandwidth)}
  device_memory_size: {int(chip.memory)}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
