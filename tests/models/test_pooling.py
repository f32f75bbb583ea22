"""Max-pooling and its gradient against those of Flax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rethinking.models.pooling import max_pool


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("height, width", [(3, 8), (4, 3), (9, 7)])
def test_max_pool_and_its_gradient_are_flaxs(height, width, padding):
    """Rounded, half of the images have several largest values in a window."""
    noise = np.random.default_rng(0)
    x = noise.normal(size=(4, height, width, 3)).astype(np.float32)
    x[2:] = np.round(x[2:])

    def pool(x):
        return max_pool(x, padding)

    def flax(x):
        return nn.max_pool(x, (3, 3), (2, 2), padding)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradient(function, x, weights):
        value, pull = jax.vjp(function, x)
        return value, *pull(weights)

    weights = noise.normal(size=jax.eval_shape(flax, x).shape).astype(np.float32)
    value, gradient = value_and_gradient(pool, x, weights)
    expected_value, expected_gradient = value_and_gradient(flax, x, weights)
    np.testing.assert_array_equal(value, expected_value)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        jnp.full((1, 4, 4, 1), -jnp.inf),
        jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan),
    ],
    ids=["minus infinity", "nan"],
)
def test_values_that_are_not_numbers_stay_so(x):
    np.testing.assert_array_equal(jax.vjp(max_pool, x)[0], nn.max_pool(x, (3, 3), (2, 2), "SAME"))


def test_only_a_tpu_scatters_the_gradient():
    """The claim is about the program. The values are the same, and only the CPU's can run here."""
    x = jnp.ones((2, 8, 8, 4), jnp.bfloat16)
    traced = jax.jit(jax.grad(lambda x: max_pool(x).sum())).trace(x)
    scattered = {
        platform: "scatter" in traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert scattered == {"cpu": False, "cuda": False, "tpu": True}
