"""The work and the traffic of a kernel system, counted for any number of devices.

A factorization needs n^3 / 6 multiplications and as many additions: n^3 / 3 operations.
"""

from rethinking.kernels.layout import Layout
from rethinking.kernels.random_conv import RandomConv


def gram_operations(n: int, num_features: int) -> int:
    """The operations of half of the Gram matrix: each entry is a product of two vectors."""
    return n**2 * num_features


def conv_operations(net: RandomConv, example_shape: tuple[int, ...]) -> int:
    """The operations of the features of an image: a product of each patch and filter."""
    height, width, channels = example_shape
    side = net.patch_size
    patches = (height - side + 1) * (width - side + 1)
    return 2 * patches * side**2 * channels * net.num_filters


def least_operations(n: int) -> float:
    """The operations of a factorization that wastes none: n^3 / 3."""
    return n**3 / 3


def operations(layout: Layout) -> float:
    """The operations of the factorization in `rethinking.kernels.sharded`, on each device."""
    width, tile = layout.width, layout.block * layout.width
    total = 0.0
    for g in range(layout.num_panels):
        slots = layout.num_panels - g
        total += 2 * slots * g * tile * width + (slots - 1) * tile * width + width**3 / 3
    return total


def numbers_sent(layout: Layout) -> int:
    """The numbers that each device receives from the others."""
    tile = layout.block * layout.width
    panels = layout.num_panels
    return panels * (panels + 1) // 2 * tile * (layout.num_devices - 1)


def tile_products(layout: Layout) -> int:
    """How many products of two tiles each device computes."""
    return sum(g * (layout.num_panels - g) for g in range(layout.num_panels))


def numbers_accessed(layout: Layout) -> int:
    """The numbers that these products read and write: two tiles, the columns, and the result."""
    return tile_products(layout) * (3 * layout.block + layout.width) * layout.width
