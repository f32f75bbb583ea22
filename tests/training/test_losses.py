"""Losses against their formulas in NumPy."""

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
