"""Convolution of images; on a CPU it is computed in pieces that suit XLA."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rethinking.models.devices import vary_like

# The part of the output's gradient that is processed at once. It stays in a core's cache.
CHUNK_BYTES = 2**20


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    strides: tuple[int, int],
    padding: Any,
    **options: Any,
) -> Float[Array, "batch _ _ features"]:
    """The result of `lax.conv_general_dilated`, for the arguments that `flax.linen.Conv` passes.

    It supports neither dilation nor groups. The values are the same on every platform, up to
    rounding. On a CPU, a 1x1 convolution is a matrix product, and the gradient of a larger kernel
    is summed over parts of the batch. For the shapes of small Inception on two cores this is 1.3
    to 15 times as fast.
    """
    plain = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    if kernel.shape[:2] == (1, 1):
        on_cpu = partial(_product, strides=strides)
    else:
        kernel = vary_like(kernel, x)
        on_cpu = partial(_convolve_in_parts, plain)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _product(x, kernel, strides):
    # SAME adds no padding around single pixels. All sums are in float32, also in the gradients.
    pixels = x[:, :: strides[0], :: strides[1]]
    return jnp.matmul(pixels, kernel[0, 0], preferred_element_type=jnp.float32).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_in_parts(plain, x, kernel):
    return plain(x, kernel)


def _forward(plain, x, kernel):
    return plain(x, kernel), (x, kernel)


def _backward(plain, residuals, gradient):
    x, kernel = residuals
    (d_x,) = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)
    size = max(1, CHUNK_BYTES * len(x) // gradient.nbytes)

    def of_part(start):
        part = slice(start, start + size)
        (d_kernel,) = jax.vjp(lambda kernel: plain(x[part], kernel), kernel)[1](gradient[part])
        return d_kernel.astype(jnp.float32)

    d_kernel = sum(of_part(start) for start in range(0, len(x), size))
    return d_x, d_kernel.astype(kernel.dtype)


_convolve_in_parts.defvjp(_forward, _backward)
