"""Batch normalization and its gradient against those of Flax, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from rethinking.models.batch_norm import BatchNorm, sums_at_once
from rethinking.sharding import DATA_AXIS, device_mesh

RANDOM = np.random.default_rng(0)
X = jnp.asarray(3 + 2 * RANDOM.standard_normal((16, 5, 4, 7)), jnp.float32)
WEIGHTS = jnp.asarray(RANDOM.standard_normal(X.shape), jnp.float32)
PARAMS = {"scale": jnp.asarray(RANDOM.uniform(0.5, 2, 7), jnp.float32), "bias": jnp.arange(7.0)}
STATS = {"mean": jnp.arange(7.0), "var": jnp.ones(7)}


def ours(axis_name=None, use_scale=True, train=True):
    return BatchNorm(use_running_average=not train, use_scale=use_scale, axis_name=axis_name)


def flax(use_scale=True, train=True):
    return nn.BatchNorm(
        use_running_average=not train, use_scale=use_scale, momentum=0.99, epsilon=1e-3
    )


def gradients(module, use_scale=True):
    """Gradients of a function that is not linear in the output, and the new statistics.

    They are those with respect to the input and the parameters.
    """

    def function(x, params):
        y, updated = module.apply(
            {"params": params, "batch_stats": STATS}, x, mutable=["batch_stats"]
        )
        return (WEIGHTS * jnp.sin(y)).sum(), updated["batch_stats"]

    params = PARAMS if use_scale else {"bias": PARAMS["bias"]}
    return jax.jit(jax.grad(function, argnums=(0, 1), has_aux=True))(X, params)


@pytest.mark.parametrize("use_scale", [True, False])
def test_values_gradients_and_statistics_are_flaxs(use_scale):
    params = PARAMS if use_scale else {"bias": PARAMS["bias"]}
    for train in (True, False):
        values = [
            module(use_scale=use_scale, train=train).apply(
                {"params": params, "batch_stats": STATS}, X, mutable=["batch_stats"]
            )[0]
            for module in (ours, flax)
        ]
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-5)
    (d_x, d_params), stats = gradients(ours(use_scale=use_scale), use_scale)
    (expected_x, expected_params), expected_stats = gradients(flax(use_scale), use_scale)
    np.testing.assert_allclose(d_x, expected_x, rtol=1e-4, atol=1e-5)
    for trees in ((d_params, expected_params), (stats, expected_stats)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *trees)
    initial = [
        module.init(jax.random.key(0), X) for module in (ours(use_scale=use_scale), flax(use_scale))
    ]
    jax.tree.map(np.testing.assert_array_equal, *initial)


@pytest.mark.parametrize("devices", [2, 8])
def test_synchronized_gradients_are_those_of_one_device(devices):
    def function(x, params, weights):
        y, updated = ours(DATA_AXIS).apply(
            {"params": params, "batch_stats": STATS}, x, mutable=["batch_stats"]
        )
        return jax.lax.psum((weights * jnp.sin(y)).sum(), DATA_AXIS), updated["batch_stats"]

    (expected_x, expected_params), expected_stats = gradients(flax())
    (d_x, d_params), stats = jax.jit(
        jax.shard_map(
            jax.grad(function, argnums=(0, 1), has_aux=True),
            mesh=device_mesh(devices),
            in_specs=(P(DATA_AXIS), P(), P(DATA_AXIS)),
            out_specs=((P(DATA_AXIS), P()), P()),
        )
    )(X, PARAMS, WEIGHTS)
    np.testing.assert_allclose(d_x, expected_x, rtol=1e-4, atol=1e-5)
    for trees in ((d_params, expected_params), (stats, expected_stats)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *trees)


def test_each_devices_own_statistics_give_the_sum_of_their_gradients():
    def function(x, params, weights):
        y, _ = ours().apply({"params": params, "batch_stats": STATS}, x, mutable=["batch_stats"])
        return (weights * jnp.sin(y)).sum()

    d_x, d_params = jax.jit(
        jax.shard_map(
            jax.grad(lambda *args: jax.lax.psum(function(*args), DATA_AXIS), argnums=(0, 1)),
            mesh=device_mesh(2),
            in_specs=(P(DATA_AXIS), P(), P(DATA_AXIS)),
            out_specs=(P(DATA_AXIS), P()),
        )
    )(X, PARAMS, WEIGHTS)
    halves = [
        jax.grad(function, argnums=(0, 1))(X[half], PARAMS, WEIGHTS[half])
        for half in (slice(8), slice(8, 16))
    ]
    np.testing.assert_allclose(d_x, jnp.concatenate([half[0] for half in halves]), atol=1e-5)
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, sum(b), rtol=1e-4, atol=1e-5),
        d_params,
        *[half[1] for half in halves],
    )


def test_sums_at_once_are_the_two_sums():
    for ours, expected in zip(jax.jit(sums_at_once)(X, WEIGHTS), (X, WEIGHTS), strict=True):
        np.testing.assert_allclose(
            ours, np.asarray(expected, np.float64).sum((0, 1, 2)), rtol=1e-5, atol=1e-4
        )


def test_batch_norm_keeps_float32_statistics():
    # In bfloat16, with 8 bits, a variance of 1 around 100 is lost.
    x = jnp.asarray(100 + RANDOM.standard_normal((4096, 3)), jnp.bfloat16)
    y, updated = BatchNorm(use_running_average=False).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-3)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, atol=0.05)
    # Initialization does not change the statistics.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0)
    _, updated = BatchNorm(use_running_average=False).apply(updated, x, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.01 * exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.99 + 0.01 * exact.var(0), rtol=1e-3)
