"""Max-pooling of images, with a gradient that is fast and does not change from run to run."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

WINDOW, STRIDES = (3, 3), (2, 2)
# The nine places in a window, as (row, column).
PLACES = [(row, column) for row in range(3) for column in range(3)]


def max_pool(
    x: Float[Array, "batch height width channels"], padding: str = "SAME"
) -> Float[Array, "batch _ _ channels"]:
    """The maximum over each window of 3x3 pixels, with stride 2.

    `padding` is "SAME" or "VALID", as in TensorFlow. Values and gradients are those of
    `flax.linen.max_pool`: the first of the pixels with the window's maximum gets its whole
    gradient.

    XLA computes that gradient by a scatter. On a GPU the scatter adds atomically, in an order that
    changes from run to run, and the sums change with it. On a CPU the scatter is slow. TPUs have an
    instruction of their own for it, so they keep XLA's program. Elsewhere this function remembers
    the place of each maximum, and the gradient is a sum over the nine places.
    """
    flax = partial(nn.max_pool, window_shape=WINDOW, strides=STRIDES, padding=padding)
    return lax.platform_dependent(x, tpu=flax, default=partial(_max_pool, padding))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(padding, x):
    return nn.max_pool(x, WINDOW, STRIDES, padding)


def _forward(padding, x):
    pads = lax.padtype_to_pads(x.shape[1:3], WINDOW, STRIDES, padding)
    padded = lax.pad(
        x, jnp.array(-jnp.inf, x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)]
    )
    height, width = (size - 2 for size in padded.shape[1:3])

    def pixels(number):
        row, column = PLACES[number]
        return padded[:, row : row + height : 2, column : column + width : 2]

    maximum = pixels(0)
    place = jnp.zeros(maximum.shape, jnp.uint8)
    for number in range(1, len(PLACES)):
        pixel = pixels(number)
        place = jnp.where(pixel > maximum, jnp.uint8(number), place)
        maximum = jnp.maximum(maximum, pixel)
    # Without the barrier, XLA would find the places again for each of the gradient's nine terms.
    return maximum, (lax.optimization_barrier(place), x.shape[1:3])


def _backward(padding, residuals, gradient):
    place, sizes = residuals
    pads = lax.padtype_to_pads(sizes, WINDOW, STRIDES, padding)

    def term(number):
        """The gradient of the windows with their maximum at this place, at those pixels."""
        edges = []
        for offset, (low, _), size, windows in zip(
            PLACES[number], pads, sizes, gradient.shape[1:3], strict=True
        ):
            first = offset - low
            last = first + 2 * (windows - 1)
            # A place in the padding lies outside the image, and its edge is then negative.
            edges.append((first, size - 1 - last, 1))
        zero = jnp.zeros((), gradient.dtype)
        return lax.pad(
            jnp.where(place == number, gradient, 0), zero, [(0, 0, 0), *edges, (0, 0, 0)]
        )

    return (sum(term(number) for number in range(len(PLACES))),)


_max_pool.defvjp(_forward, _backward)
