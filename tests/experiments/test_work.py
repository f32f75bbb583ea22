"""The operations of products and convolutions, against XLA's own count and counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from rethinking.experiments import work


def count(function, *shapes, platform="cuda"):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return work.count(jax.make_jaxpr(function)(*arrays).jaxpr, platform)


def convolve(x, kernel, stride=1, padding="SAME", groups=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=layout,
        feature_group_count=groups,
    )


@pytest.mark.parametrize("stride, padding", [(1, "SAME"), (2, "SAME"), (3, "VALID")])
def test_a_convolution_and_its_gradients_count_as_in_xla(stride, padding):
    """Nothing is counted for the padding, nor for the zeros between the strides' gradients."""
    shapes = (4, 11, 10, 6), (5, 3, 6, 8)

    def forward(x, kernel):
        return convolve(x, kernel, stride, padding)

    def gradients(x, kernel, cotangent):
        return jax.vjp(forward, x, kernel)[1](cotangent)

    result = jax.eval_shape(forward, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).shape
    for function, arguments in ((forward, shapes), (gradients, (*shapes, result))):
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arguments]
        expected = jax.jit(function).lower(*arrays).cost_analysis()["flops"]
        found = count(function, *arguments)
        # The forward pass is part of the gradients' jaxpr, although nothing uses its result.
        if function is gradients:
            found -= count(forward, *shapes)
        assert found == pytest.approx(expected, rel=1e-6)


def test_groups_products_loops_and_branches():
    # 4 x 8 x 8 results of 12 channels, each of 3 x 3 taps of one of 6 groups' 2 channels.
    grouped = count(
        lambda x, kernel: convolve(x, kernel, padding="VALID", groups=6),
        (4, 10, 10, 12),
        (3, 3, 2, 12),
    )
    assert grouped == 2 * (4 * 8 * 8 * 12) * (3 * 3 * 2)
    batched = count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 2, 3), (5, 3, 4))
    assert batched == 2 * 5 * 2 * 3 * 4

    def looped(a):
        return lax.scan(lambda carry, _: (carry @ a, None), a, length=7)[0]

    assert count(looped, (3, 3)) == 7 * 2 * 27

    def either(a):
        return lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert count(either, (3, 3)) == 2 * 2 * 27

    def by_platform(a):
        return lax.platform_dependent(a, cpu=lambda a: a @ a @ a, default=lambda a: a @ a)

    assert count(by_platform, (3, 3)) == 2 * 27
    assert count(by_platform, (3, 3), platform="cpu") == 2 * 2 * 27


def test_a_training_step_counts_each_weight_for_each_example():
    def loss(weights, x):
        return (jnp.tanh(x @ weights[0]) @ weights[1]).sum()

    found = count(
        lambda x, *weights: jax.grad(loss)(weights, x), (128, 2352), (2352, 512), (512, 10)
    )
    # Forward and the weights' gradient in the first layer. In the second also the gradient of its
    # input, and no forward pass, because a sum has a gradient without its value.
    assert found == 2 * 128 * (2 * 2352 * 512 + 2 * 512 * 10) + 2 * 128 * 512 * 10
