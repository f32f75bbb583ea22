"""The published memory and rates of accelerators."""

import dataclasses

from rethinking.errors import require_known


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's published memory and rates."""

    memory: float  # bytes
    flops: float  # bfloat16 operations a second
    bandwidth: float  # bytes a second, to and from its memory
    links: float  # bytes a second that it sends to other chips, over all its links
    # float32 operations a second, as JAX multiplies by default: TF32 on GPUs, bfloat16 on TPUs
    float32: float = 0.0
    float64: float = 0.0  # float64 operations a second; 0: it has no float64
    launch: float = 0.0  # seconds that the host needs for each kernel


# A rule of thumb for the launch of a kernel on a GPU. On a TPU a program is one kernel.
_LAUNCH = 2.5e-6
# From Google Cloud's documentation of its TPU versions, and from NVIDIA's data sheets of the A100,
# H100 and H200 (SXM; dense, NVLink; TF32 and FP64 of the tensor cores). The names are JAX's.
CHIPS = {
    "TPU v4": Chip(32e9, 275e12, 1228e9, 300e9, 275e12),
    "TPU v5 lite": Chip(16e9, 197e12, 819e9, 200e9, 197e12),
    "TPU v5": Chip(95e9, 459e12, 2765e9, 600e9, 459e12),
    "TPU v6 lite": Chip(32e9, 918e12, 1640e9, 448e9, 918e12),
    "NVIDIA A100-SXM4-80GB": Chip(80e9, 312e12, 2039e9, 300e9, 156e12, 19.5e12, _LAUNCH),
    "NVIDIA H100 80GB HBM3": Chip(80e9, 989e12, 3350e9, 450e9, 494e12, 67e12, _LAUNCH),
    "NVIDIA H200": Chip(141e9, 989e12, 4800e9, 450e9, 494e12, 67e12, _LAUNCH),
}
# The names that people use.
SHORT = {
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
    "a100": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
}


def find(name: str) -> tuple[str, Chip]:
    """JAX's name of the chip that people call `name`, and its rates.

    Raises InputError, with the nearest known name, for an unknown chip.
    """
    require_known(name.lower(), SHORT, "unknown chip")
    full = SHORT[name.lower()]
    return full, CHIPS[full]
