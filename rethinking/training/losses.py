"""Losses of a batch, one number per example."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

# The weight of the auxiliary head's loss in TensorFlow's recipe for Inception V3.
AUX_WEIGHT = 0.4

Logits = Float[Array, "batch classes"]


def as_float32(outputs: Any) -> Any:
    """A network's outputs in float32, from which every loss and accuracy is computed.

    Logits in bfloat16 have two to three digits. Their exponentials need more.
    """
    return jax.tree.map(lambda logits: logits.astype(jnp.float32), outputs)


def cross_entropy(
    outputs: Logits | tuple[Logits, Logits], labels: Int[Array, "batch"], smoothing: float = 0.0
) -> Float[Array, "batch"]:
    """The softmax cross entropy of a network's outputs, for each example.

    Args:
        outputs: logits, or a pair (logits, auxiliary logits). The loss of the auxiliary logits is
            added with the weight `AUX_WEIGHT`. Losses and their gradients are float32.
        labels: classes.
        smoothing: a label counts 1 - smoothing, and the rest is spread evenly over all classes, the
            label's own included (Szegedy et al. 2015, section 7).
    """
    outputs = as_float32(outputs)
    if not isinstance(outputs, tuple):
        return _cross_entropy(outputs, labels, smoothing)
    logits, aux_logits = outputs
    loss = _cross_entropy(logits, labels, smoothing)
    return loss + AUX_WEIGHT * _cross_entropy(aux_logits, labels, smoothing)


def _cross_entropy(
    logits: Logits, labels: Int[Array, "batch"], smoothing: float
) -> Float[Array, "batch"]:
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))
