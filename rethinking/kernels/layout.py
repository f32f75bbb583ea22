"""The place of each entry of a symmetric matrix: column panels, whose rows the devices share."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the lower half of an n x n matrix lies on `num_devices` devices.

    - Panel g is `width` columns, from the diagonal down. The n rows are padded to whole panels.
    - A slot is `width` rows of a panel. A slot has one block of `block` rows for each device.
    - So every device owns the same part of every panel, and a row always has the same owner.
    - A tile is one device's block of one slot of one panel: `block` by `width` numbers.
    """

    n: int
    num_devices: int
    num_panels: int
    block: int

    @property
    def width(self) -> int:
        """Columns of a panel, and rows of a slot."""
        return self.block * self.num_devices

    @property
    def size(self) -> int:
        """Rows of the padded matrix."""
        return self.num_panels * self.width

    @property
    def num_tiles(self) -> int:
        """Tiles that each device stores: those at and below the diagonal."""
        return self.num_panels * (self.num_panels + 1) // 2

    @property
    def entries(self) -> int:
        """Numbers that each device stores: its share of n^2 / 2 and of half a panel."""
        return self.num_tiles * self.block * self.width

    def tile(self, panel, slot):
        """The index of a tile among those of its device, which are ordered by panel, then by slot.

        The slot must not lie above the panel's diagonal: slot >= panel.
        """
        return panel * self.num_panels - panel * (panel - 1) // 2 + slot - panel

    def columns(self, panel: int) -> slice:
        """The matrix's columns in a panel."""
        return slice(panel * self.width, min((panel + 1) * self.width, self.n))

    @functools.cached_property
    def order(self) -> Int64[np.ndarray, " size"]:
        """The rows of the padded matrix in the order of their owners; device 0's come first."""
        rows = np.arange(self.size).reshape(self.num_panels, self.num_devices, self.block)
        return rows.transpose(1, 0, 2).ravel()


def make(n: int, num_devices: int = 1, num_panels: int = 0) -> Layout:
    """The layout of an n x n matrix; `num_panels` 0 chooses it.

    If it chooses, the number of rows of a block is a multiple of 32. In blocks of fewer than 1,024
    rows, it is a multiple of a smaller power of two, at least a 64th of the block. A GPU's matrix
    products are fast for rows that begin at multiples of 16 bytes, and they work on tiles of such
    sizes.

    More panels waste less work, and wider panels make faster products. The waste is the upper half
    of each diagonal block, and the factor of that block, which every device computes. Relative to
    n^3 / 3 it is 3 / (2 num_panels) + num_devices / num_panels^2. Padding adds to it.
    """
    least = num_panels or min(max(32, 4 * math.isqrt(num_devices)), math.ceil(n / 256))
    most = num_panels or least * 5 // 4
    layouts = []
    for panels in range(least, most + 1):
        block = math.ceil(n / num_devices / panels)
        if not num_panels:
            step = 1 << min(5, max(0, (block // 32).bit_length() - 1))
            block = math.ceil(block / step) * step
        layouts.append(Layout(n, num_devices, math.ceil(n / (block * num_devices)), block))
    # The candidate with the least padding.
    return min(layouts, key=lambda layout: layout.size)
