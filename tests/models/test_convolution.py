"""Convolution in pieces that suit a CPU, against `jax.lax` and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rethinking.models import convolution
from rethinking.models.convolution import convolve

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def value_and_gradients(function, x, kernel):
    """The value and gradients of a function that is not linear in the convolution's output."""
    return jax.jit(
        jax.value_and_grad(lambda x, kernel: jnp.cos(function(x, kernel)).mean(), argnums=(0, 1))
    )(x, kernel)


@pytest.mark.parametrize("channels, features", [(5, 6), (6, 5)])
@pytest.mark.parametrize("by", ["products", "convolutions"])
@pytest.mark.parametrize(
    "size,stride,padding,parts,dtype",
    [
        ((1, 1), 1, "SAME", 3, "float32"),
        ((1, 1), 2, "SAME", 1, "float32"),
        ((1, 1), 2, "VALID", 3, "bfloat16"),
        ((3, 3), 1, "SAME", 1, "float32"),
        ((3, 3), 1, "SAME", 3, "float32"),
        ((3, 3), 1, "SAME", 6, "bfloat16"),
        ((3, 3), 2, "VALID", 3, "float32"),
        ((1, 7), 1, "SAME", 3, "float32"),
        ((2, 3), 1, ((0, 1), (3, 0)), 3, "float32"),
        ((5, 5), 3, "SAME", 3, "float32"),
    ],
)
def test_values_and_gradients_are_laxs(
    size, stride, padding, parts, dtype, by, channels, features, monkeypatch
):
    x = jax.random.normal(jax.random.key(0), (6, 9, 8, channels), dtype)
    kernel = jax.random.normal(jax.random.key(1), (*size, channels, features), dtype) / 5
    options = {"padding": padding, "dimension_numbers": DIMENSIONS}
    plain = functools.partial(lax.conv_general_dilated, window_strides=(stride, stride), **options)
    out = jax.eval_shape(plain, x, kernel)
    monkeypatch.setattr(convolution, "FEW_CHANNELS", {"products": 1, "convolutions": 7}[by])
    monkeypatch.setattr(convolution, "PART_BYTES", out.size * out.dtype.itemsize // parts)
    monkeypatch.setattr(convolution, "PART_PIXELS", out.size // out.shape[-1] // parts)
    values = value_and_gradients(
        functools.partial(convolve, strides=(stride, stride), **options), x, kernel
    )
    expected = value_and_gradients(plain, x.astype(jnp.float32), kernel.astype(jnp.float32))
    tolerance = {"float32": 1e-5, "bfloat16": 0.02}[dtype]
    for value, wanted in zip(jax.tree.leaves(values), jax.tree.leaves(expected), strict=True):
        assert value.dtype == dtype
        atol = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(value.astype(jnp.float32), wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("channels, further", [(4, 3), (16, -1)])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_a_cpu_takes_the_kernels_gradient_in_parts(platform, channels, further, monkeypatch):
    """The claim is about the program: a CPU computes the kernel's gradient by four convolutions.

    With many channels it computes that by none, and multiplies matrices. The values are the same on
    all platforms, and this machine can run only the CPU's program. So the test compares the
    programs.
    """
    x, kernel = jnp.ones((8, 6, 6, channels)), jnp.ones((3, 3, channels, channels))
    monkeypatch.setattr(convolution, "PART_BYTES", x.nbytes // 4)

    def num_convolutions(function):
        def loss(x, kernel):
            return jnp.sin(function(x, kernel)).sum()

        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, kernel)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution")

    options = {"padding": "SAME", "dimension_numbers": DIMENSIONS}
    ours = functools.partial(convolve, strides=(1, 1), **options)
    plain = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), **options)
    assert num_convolutions(ours) == num_convolutions(plain) + further * (platform == "cpu")
