"""Max-pooling of images, with a gradient that is fast and the same from run to run on every platform."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

WINDOW, STRIDES = (3, 3), (2, 2)
PLACES = [(row, column) for row in range(3) for column in range(3)]  # in a window


def max_pool(
    x: Float[Array, "batch height width channels"], padding: str = "SAME"
) -> Float[Array, "batch _ _ channels"]:
    """The maximum over each window of 3x3 pixels, with stride 2; `padding` is "SAME" or "VALID", as in TensorFlow.

    Values and gradients are those of `flax.linen.max_pool`: of the pixels of a window that have its maximum, the first
    one has all of its gradient. XLA scatters that: on a GPU by atomic additions, whose order and therefore sum differ
    from run to run, and on a CPU slowly; TPUs have an instruction of their own for it. So elsewhere the place of the
    maximum is kept, and the gradient is a sum over the nine places.
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
    maximum, place = None, None
    for number, (row, column) in enumerate(PLACES):
        pixel = padded[:, row : row + height : 2, column : column + width : 2]
        place = (
            jnp.where(pixel > maximum, jnp.uint8(number), place)
            if number
            else jnp.zeros(pixel.shape, jnp.uint8)
        )
        maximum = jnp.maximum(maximum, pixel) if number else pixel
    # Behind a barrier, or XLA finds the place of every maximum anew, for each of the nine terms of the gradient.
    return maximum, (lax.optimization_barrier(place), x.shape[1:3])


def _backward(padding, residuals, gradient):
    place, sizes = residuals
    pads = lax.padtype_to_pads(sizes, WINDOW, STRIDES, padding)

    def at(number):
        edges = []
        for offset, (low, _), size, windows in zip(
            PLACES[number], pads, sizes, gradient.shape[1:3], strict=True
        ):
            first, last = offset - low, offset - low + 2 * (windows - 1)
            edges.append((first, size - 1 - last, 1))  # negative where a place lies in the padding
        return lax.pad(
            jnp.where(place == number, gradient, 0),
            jnp.zeros((), gradient.dtype),
            [(0, 0, 0), *edges, (0, 0, 0)],
        )

    return (sum(at(number) for number in range(len(PLACES))),)


_max_pool.defvjp(_forward, _backward)
