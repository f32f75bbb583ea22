"""Losses against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethinking.training import losses

LOGITS, AUX_LOGITS = np.random.default_rng(0).normal(scale=3, size=(2, 6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 1])


def formula(logits, smoothing):
    logits = logits.astype(np.float64)
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    return -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_smoothing_and_auxiliary_head(smoothing):
    logits, aux_logits, labels = map(jnp.asarray, (LOGITS, AUX_LOGITS, LABELS))
    expected, aux = formula(LOGITS, smoothing), formula(AUX_LOGITS, smoothing)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, smoothing), expected, rtol=1e-5)
    both = losses.cross_entropy((logits, aux_logits), labels, smoothing)
    np.testing.assert_allclose(both, expected + 0.4 * aux, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_low_precision_logits_are_those_of_the_same_logits_in_float32(dtype, smoothing):
    low, aux, labels = jnp.asarray(LOGITS, dtype), jnp.asarray(AUX_LOGITS, dtype), LABELS
    low32, aux32 = low.astype(jnp.float32), aux.astype(jnp.float32)

    def loss(*outputs):
        return losses.cross_entropy(outputs, jnp.asarray(labels), smoothing)

    found = loss(low, aux)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, loss(low32, aux32))
    expected = formula(np.asarray(low32), smoothing) + 0.4 * formula(np.asarray(aux32), smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradient = jax.grad(lambda logits: loss(logits, aux).sum())(low)
    exact = jax.grad(lambda logits: loss(logits, aux32).sum())(low32)
    np.testing.assert_array_equal(gradient, exact.astype(dtype))  # rounded once, at the end
