"""Convolution of images; on a CPU it is computed in pieces that suit XLA."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rethinking.models.devices import vary_like

# With fewer channels than this, XLA's own convolutions are faster than thin matrix products.
FEW_CHANNELS = 16
# A convolution takes so much of the output's gradient at once. It stays in a core's cache.
PART_BYTES = 2**20
# A matrix product takes as few images at once as have so many pixels together: enough for its
# speed, and little enough for a core's cache.
PART_PIXELS = 128


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    strides: tuple[int, int],
    padding: Any,
    **options: Any,
) -> Float[Array, "batch _ _ features"]:
    """The result of `lax.conv_general_dilated`, for the arguments that `flax.linen.Conv` passes.

    It supports neither dilation nor groups. The values are the same on every platform, up to
    rounding. On a CPU, a 1x1 convolution is a matrix product, and the gradient of a kernel is
    summed over small parts of the batch. `benchmarks/README.md` says how much faster that is.
    """
    plain = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    kernel = vary_like(kernel, x)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    # SAME adds no padding around single pixels.
    forward = partial(_product, strides=strides) if kernel.shape[:2] == (1, 1) else plain
    if min(kernel.shape[2:]) < FEW_CHANNELS:
        of_kernel = partial(_by_convolutions, forward)
    else:
        of_kernel = partial(_by_products, strides=tuple(strides), padding=padding)

    @jax.custom_vjp
    def on_cpu(x, kernel):
        return forward(x, kernel)

    def backward(residuals, gradient):
        x, kernel = residuals
        (d_x,) = jax.vjp(lambda x: forward(x, kernel), x)[1](gradient)
        return d_x, of_kernel(x, kernel, gradient).astype(kernel.dtype)

    on_cpu.defvjp(lambda x, kernel: (forward(x, kernel), (x, kernel)), backward)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _product(x, kernel, strides):
    # All sums are in float32, also in the gradients.
    pixels = x[:, :: strides[0], :: strides[1]]
    return jnp.matmul(pixels, kernel[0, 0], preferred_element_type=jnp.float32).astype(x.dtype)


def _by_convolutions(forward, x, kernel, gradient):
    size = max(1, PART_BYTES * len(x) // gradient.nbytes)

    def of_part(start):
        part = slice(start, start + size)
        (d_kernel,) = jax.vjp(lambda kernel: forward(x[part], kernel), kernel)[1](gradient[part])
        return d_kernel.astype(jnp.float32)

    return sum(of_part(start) for start in range(0, len(x), size))


def _by_products(x, kernel, gradient, strides, padding):
    size = kernel.shape[:2]
    if strides != (1, 1) or x.shape[-1] <= gradient.shape[-1]:
        return _correlate(x, gradient, size, strides, padding)
    # The same sums, but the gradient is shifted, which has fewer channels than the images.
    padding = [(n - 1 - low, n - 1 - high) for n, (low, high) in zip(size, padding, strict=True)]
    return _correlate(gradient, x, size, strides, padding)[::-1, ::-1].swapaxes(2, 3)


def _correlate(
    shifted: Float[Array, "batch height width channels"],
    still: Float[Array, "batch rows columns features"],
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: Any,
) -> Float[Array, "{size[0]} {size[1]} channels features"]:
    """For each shift of the first images, the sum of their products with the second, in float32.

    The first images are padded, or cropped where padding is negative.
    """
    borders = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    shifted = lax.pad(shifted, jnp.zeros((), shifted.dtype), borders)
    (batch, rows, columns, features), channels = still.shape, shifted.shape[-1]

    def add_part(totals, part):
        shifted, still = part
        pixels = still.reshape(-1, features)
        right = (columns - 1) * strides[1] + 1
        below = (rows - 1) * strides[0] + 1
        wide = jnp.concatenate(
            [shifted[:, :, j : j + right : strides[1]] for j in range(size[1])], axis=-1
        )
        return [
            total
            + lax.dot_general(
                pixels,
                wide[:, i : i + below : strides[0]].reshape(len(pixels), -1),
                (((0,), (0,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            for i, total in enumerate(totals)
        ], None

    length = next(
        n
        for n in range(1, batch + 1)
        if batch % n == 0 and (n * rows * columns >= PART_PIXELS or n == batch)
    )
    parts = [a.reshape(batch // length, length, *a.shape[1:]) for a in (shifted, still)]
    zeros = vary_like(jnp.zeros((features, size[1] * channels), jnp.float32), still)
    totals, _ = lax.scan(add_part, [zeros] * size[0], parts)
    total = jnp.stack(totals).reshape(size[0], features, size[1], channels)
    return total.transpose(0, 2, 3, 1)
