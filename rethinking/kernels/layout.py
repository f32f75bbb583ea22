"""How a symmetric matrix lies in memory: column panels of its lower half, their rows dealt to devices in turn."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class Layout:
    """Panel g is the columns `offsets[g]` to `offsets[g + 1]` of the lower half, from the diagonal down.

    Its rows belong to devices in blocks: the rows of every panel's diagonal block are cut into one block per device, so
    that each device owns the same part of every panel, and a row keeps its owner. The matrix is padded by the identity,
    by fewer than `num_devices` rows.
    """

    n: int
    num_devices: int
    widths: tuple[int, ...]

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first column of each panel, and the padded size."""
        return (0, *map(int, np.cumsum(self.widths)))

    @property
    def num_panels(self) -> int:
        return len(self.widths)

    @property
    def size(self) -> int:
        """Rows of the padded matrix."""
        return self.offsets[-1]

    def columns(self, panel: int) -> slice:
        return slice(self.offsets[panel], self.offsets[panel + 1])

    def block(self, panel: int) -> int:
        """Rows of a panel's diagonal block that each device owns."""
        return self.widths[panel] // self.num_devices

    def start(self, panel: int) -> int:
        """Where a panel's diagonal block begins among a device's own rows."""
        return self.offsets[panel] // self.num_devices

    def height(self, panel: int) -> int:
        """Rows of a panel that each device owns."""
        return self.size // self.num_devices - self.start(panel)

    @functools.cached_property
    def order(self) -> Int64[np.ndarray, " size"]:
        """The matrix's row at each place: device 0's rows first, then device 1's, ..."""
        owner = np.concatenate([np.repeat(np.arange(self.num_devices), self.block(g)) for g in range(self.num_panels)])
        return np.argsort(owner, kind="stable")

    @property
    def entries(self) -> int:
        """Numbers that each device stores for the factor: n^2 / 2 and half a panel, over the number of devices."""
        return sum(self.height(g) * self.widths[g] for g in range(self.num_panels))


def make(n: int, num_devices: int = 1, num_panels: int = 0) -> Layout:
    """The layout of an n x n matrix; `num_panels` 0 chooses it.

    More panels waste less work (the half of the diagonal blocks above the diagonal, and their factorization, which
    every device does for itself), wider ones make faster products and shorter programs. The waste is 3 / (2 num_panels)
    + num_devices / num_panels^2 of n^3 / 3.
    """
    num_panels = num_panels or min(max(32, 4 * math.isqrt(num_devices)), math.ceil(n / 256))
    # In units of a row per device, so that every device owns a block of every panel.
    units = math.ceil(n / num_devices)
    width = math.ceil(units / num_panels)
    # All of one width but the last, since programs for a diagonal block are compiled for its width.
    blocks = [min(width, units - first) for first in range(0, units, width)]
    return Layout(n, num_devices, tuple(block * num_devices for block in blocks))
