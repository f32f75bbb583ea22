"""How a symmetric matrix lies in memory: column panels of its lower half, their rows dealt to devices in turn."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class Layout:
    """Panel g is `width` columns of the lower half, from the diagonal down; n rows are padded to whole panels.

    A panel's rows are cut into slots of `width` rows, and each slot into a block per device, so that every device owns
    the same part of every panel, and a row keeps its owner. A block of a panel, `block` by `width` numbers, is a tile.
    """

    n: int
    num_devices: int
    num_panels: int
    block: int

    @property
    def width(self) -> int:
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
        """Numbers that each device stores: n^2 / 2 and half a panel, over the number of devices."""
        return self.num_tiles * self.block * self.width

    def tile(self, panel, slot):
        """The place among a device's tiles, which lie panel by panel, of that of a panel and a slot not before it."""
        return panel * self.num_panels - panel * (panel - 1) // 2 + slot - panel

    def columns(self, panel: int) -> slice:
        """The matrix's columns in a panel."""
        return slice(panel * self.width, min((panel + 1) * self.width, self.n))

    @functools.cached_property
    def order(self) -> Int64[np.ndarray, " size"]:
        """The matrix's row at each place: device 0's rows first, then device 1's, ..."""
        rows = np.arange(self.size).reshape(self.num_panels, self.num_devices, self.block)
        return rows.transpose(1, 0, 2).ravel()


def make(n: int, num_devices: int = 1, num_panels: int = 0) -> Layout:
    """The layout of an n x n matrix; `num_panels` 0 chooses it.

    It chooses blocks of a multiple of 32 rows, or of the power of two that is at least a 64th of one: a GPU's products
    want rows that begin at multiples of 16 bytes, and are cut into tiles of such sizes.

    More panels waste less work (the half of the diagonal blocks above the diagonal, and their factorization, which
    every device does for itself), wider ones make faster products. The waste is 3 / (2 num_panels) + num_devices /
    num_panels^2 of n^3 / 3, and that of the padding.
    """
    least = num_panels or min(max(32, 4 * math.isqrt(num_devices)), math.ceil(n / 256))
    most = num_panels or least * 5 // 4  # among which the padding is small for one
    blocks = [math.ceil(n / num_devices / panels) for panels in range(least, most + 1)]
    if not num_panels:
        steps = [1 << min(5, max(0, (block // 32).bit_length() - 1)) for block in blocks]
        blocks = [math.ceil(block / step) * step for block, step in zip(blocks, steps, strict=True)]
    layouts = [
        Layout(n, num_devices, math.ceil(n / (block * num_devices)), block) for block in blocks
    ]
    return min(layouts, key=lambda layout: layout.size)
