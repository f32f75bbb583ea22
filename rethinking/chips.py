"""Accelerators: their published memory and rates, for estimates without the chip."""

import dataclasses
from typing import NamedTuple

from rethinking.errors import require_known

# The dtype, in `Chip.rate`, of float32 numbers that are multiplied at full precision.
FULL_FLOAT32 = "float32 at full precision"


class Bounds(NamedTuple):
    """Lower bounds on the seconds of a program: for its operations, its bytes, its launches."""

    work: float
    memory: float
    launches: float


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's published memory and rates. An operation is a multiplication or an addition.

    Attributes:
        memory: bytes.
        flops: operations a second of products in bfloat16, with sums in float32.
        bandwidth: bytes a second, to and from its memory.
        links: bytes a second that it sends to other chips, over all its links.
        float32: operations a second of products of float32 numbers at JAX's default precision.
            That is TensorFloat-32 on a GPU and bfloat16 on a TPU. 0: as `flops`.
        exact_float32: the same at full precision, which kernel systems use. 0: not known.
        float64: operations a second in float64. 0: it has no float64.
        launch_seconds: the time to start a kernel. 0: a program starts only once.
        usable: the share of the memory that JAX takes unless told otherwise.
    """

    memory: float
    flops: float
    bandwidth: float
    links: float
    float32: float = 0.0
    exact_float32: float = 0.0
    float64: float = 0.0
    launch_seconds: float = 0.0
    usable: float = 1.0

    def rate(self, dtype: str) -> float:
        """Operations a second of products in `dtype`, or `FULL_FLOAT32`. 0: not known, or none."""
        rates = {
            "float32": self.float32 or self.flops,
            FULL_FLOAT32: self.exact_float32,
            "float64": self.float64,
        }
        return rates.get(dtype, self.flops)

    def bounds(
        self, dtype: str, operations: float | int, moved: float | int, launches: float | int
    ) -> Bounds:
        """The least seconds of a program, by its operations in `dtype`, bytes, and kernels.

        `rate(dtype)` must be known.
        """
        return Bounds(
            operations / self.rate(dtype), moved / self.bandwidth, launches * self.launch_seconds
        )


def _gpu(memory: float, flops: float, bandwidth: float, links: float, others: tuple) -> Chip:
    # `others` are the rates of TensorFloat-32, float32 and float64. A rule of thumb for a launch is
    # 2 to 3 microseconds. JAX takes 75% of a GPU's memory.
    return Chip(memory, flops, bandwidth, links, *others, 2.5e-6, 0.75)


def _tpu(memory: float, flops: float, bandwidth: float, links: float) -> Chip:
    # A TPU multiplies float32 numbers exactly by six products in bfloat16.
    return Chip(memory, flops, bandwidth, links, flops, flops / 6)


# By JAX's name of the device. From Google Cloud's documentation of its TPU versions, and from
# NVIDIA's data sheets of the A100, H100 and H200 (dense, SXM, NVLink; float64 on tensor cores).
CHIPS = {
    "TPU v4": _tpu(32e9, 275e12, 1228e9, 300e9),
    "TPU v5 lite": _tpu(16e9, 197e12, 819e9, 200e9),
    "TPU v5": _tpu(95e9, 459e12, 2765e9, 600e9),
    "TPU v6 lite": _tpu(32e9, 918e12, 1640e9, 448e9),
    "NVIDIA A100-SXM4-80GB": _gpu(80e9, 312e12, 2039e9, 300e9, (156e12, 19.5e12, 19.5e12)),
    "NVIDIA H100 80GB HBM3": _gpu(80e9, 989e12, 3350e9, 450e9, (494e12, 67e12, 67e12)),
    "NVIDIA H200": _gpu(141e9, 989e12, 4800e9, 450e9, (494e12, 67e12, 67e12)),
}
# Assumed of a host of TPUs. Two of its virtual cores share a core. A core of the machine of
# benchmarks/README.md computes 70e9 operations a second in float64.
CORE_FLOPS = 20e9
# The time in which a virtual core makes an entry of a Gram matrix from a product of two examples.
ENTRY_SECONDS = 40e-9
# Bytes a second from a chip to its host.
HOST_LINK = 10e9


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine that holds TPU chips: its virtual cores, and the bytes of its memory."""

    cores: int
    memory: float


# By the number of chips of a host. From Google Cloud's documentation of its TPU versions.
HOSTS = {
    "TPU v5 lite": {1: Host(24, 48e9), 4: Host(112, 192e9), 8: Host(224, 384e9)},
    "TPU v5": {4: Host(208, 448e9)},
}
SHORT_NAMES = {
    "a100": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
}


def find(name: str) -> Chip:
    """The chip of a name: JAX's name of the device, or a short one such as h100 or v5e.

    Raises InputError for a chip that is not in the table.
    """
    full_name = SHORT_NAMES.get(name.lower(), name)
    require_known(full_name, CHIPS.keys() | SHORT_NAMES.keys(), "unknown chip")
    return CHIPS[full_name]


def host(kind: str, num_chips: int) -> Host | None:
    """Each host of a slice of so many chips, or None if it is not in the table.

    A slice that one host does not hold has hosts of four chips.
    """
    sizes = HOSTS.get(kind, {})
    return sizes.get(num_chips, sizes.get(4))
