"""What networks share: the maximum over windows against Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rethinking.models.layers import max_pool


def gradient(pool, x, weights):
    return jax.grad(lambda x: (weights * pool(x)).sum())(x)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("height", [3, 4, 9])
@pytest.mark.parametrize("width", [3, 7, 8])
def test_max_pool_and_its_gradient_are_flaxs_where_no_two_pixels_are_equal(height, width, padding):
    def flax(x):
        return nn.max_pool(x, (3, 3), (2, 2), padding)

    x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    np.testing.assert_array_equal(max_pool(x, padding), flax(x))
    weights = jax.random.normal(jax.random.key(1), flax(x).shape)
    ours = gradient(lambda x: max_pool(x, padding), x, weights)
    np.testing.assert_allclose(ours, gradient(flax, x, weights), rtol=1e-6, atol=1e-6)


def test_equal_pixels_share_the_gradient():
    """Two of nine pixels have the maximum; of four windows with zeros only, each has a gradient of one to share."""
    x = jnp.zeros((1, 3, 3, 1)).at[0, 1, (0, 2), 0].set(1.0)
    np.testing.assert_array_equal(gradient(lambda x: max_pool(x, "VALID"), x, 1.0)[0, :, :, 0] > 0, x[0, :, :, 0] > 0)
    np.testing.assert_allclose(gradient(lambda x: max_pool(x, "VALID"), x, 1.0).sum(), 1.0)
    zeros = jnp.zeros((1, 4, 4, 2))
    np.testing.assert_allclose(gradient(max_pool, zeros, 1.0).sum(), 8.0)


def test_only_a_tpu_scatters_the_gradient():
    x = jnp.ones((2, 8, 8, 4), jnp.bfloat16)
    traced = jax.jit(jax.grad(lambda x: max_pool(x).sum())).trace(x)
    scattered = {platform: "scatter" in traced.lower(lowering_platforms=(platform,)).as_text()
                 for platform in ("cpu", "cuda", "tpu")}
    assert scattered == {"cpu": False, "cuda": False, "tpu": True}
