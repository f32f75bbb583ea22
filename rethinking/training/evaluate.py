"""Loss and accuracy over a whole set, every example counted once; and the logits behind them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rethinking.models.adapters import Model
from rethinking.sharding import DataParallel
from rethinking.training.losses import as_float32
from rethinking.training.state import TrainState


def make_evaluate(model: Model, devices: DataParallel, batch_size: int, view: Callable) -> Callable:
    """A function (state, examples [n, ...], labels [n]) -> {"loss", "accuracy"} on the host.

    Both are means over the n examples, with the model in evaluation mode. See `make_sums`.

    The host divides, in float64. XLA would multiply by the float32 nearest to 1/n, and for some n
    the accuracy of a perfect fit would be less than 1.
    """
    sums = make_sums(model, devices, batch_size, view)

    def evaluate(state, examples, labels):
        totals = sums(state, examples, labels)
        return {name: float(total) / len(labels) for name, total in totals.items()}

    return evaluate


def make_sums(model: Model, devices: DataParallel, batch_size: int, view: Callable) -> Callable:
    """A compiled function (state, examples [n, ...], labels [n]) -> {"loss", "accuracy"}.

    Both are sums over the n examples, with the model in evaluation mode. `batch_size` is per
    device, and `view` turns stored examples into what the network sees.

    The last batch starts early enough to be a full one, and a mask leaves out the examples that it
    repeats.
    """

    @jax.named_scope("evaluate")
    def evaluate(state, examples, labels):
        num = labels.shape[0]
        size = min(batch_size, num)
        batches_per_device = -(-num // (size * devices.size))
        first = devices.index() * batches_per_device

        def add_batch(sums, i):
            start = (first + i) * size
            slice_start = jnp.minimum(start, num - size)
            counted = slice_start + jnp.arange(size) >= start
            x = lax.dynamic_slice_in_dim(examples, slice_start, size)
            y = lax.dynamic_slice_in_dim(labels, slice_start, size)
            logits = _logits(model, state, view(x))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            correct = (jnp.argmax(logits, -1) == y) & counted
            return (sums[0] + jnp.where(counted, losses, 0).sum(), sums[1] + correct.sum()), None

        zeros = devices.varying((jnp.float32(0), jnp.int32(0)))
        sums, _ = lax.scan(add_batch, zeros, jnp.arange(batches_per_device))
        loss, correct = devices.sum(sums)
        return {"loss": loss, "accuracy": correct}

    return devices.compile(evaluate)


def make_evaluate_batch(model: Model, devices: DataParallel, view: Callable) -> Callable:
    """A compiled function (state, batch) -> {"loss", "accuracy", "accuracy_top5", "weight"}.

    Each is a sum over the batch, in which an example counts as much as its weight. The model is in
    evaluation mode. `batch` is a `data.stream.Batch` of arrays split over the devices, and `view`
    turns its images into what the network sees.
    """

    @jax.named_scope("evaluate")
    def evaluate_batch(state, batch):
        logits = _logits(model, state, view(batch.images))
        labels, weights = batch.labels, batch.weights
        top = lax.top_k(logits, min(5, logits.shape[-1]))[1] == labels[:, None]
        values = {
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
            "accuracy": top[:, 0].astype(jnp.float32),
            "accuracy_top5": top.any(axis=1).astype(jnp.float32),
            "weight": jnp.ones_like(weights),
        }
        sums = {}
        for name, value in values.items():
            # A row that does not count may hold anything, and nan times zero would be nan.
            sums[name] = jnp.where(weights > 0, value * weights, 0).sum()
        return devices.sum(sums)

    return devices.compile(evaluate_batch, split_argnums=(1,))


def make_logits(model: Model, devices: DataParallel, batch_size: int, view: Callable) -> Callable:
    """A function (state, examples [n, ...]) -> logits [n, num_classes] on the host.

    The model is in evaluation mode. Every device computes all logits, in batches of `batch_size`.
    `view` is that of `make_evaluate`.
    """

    @devices.compile
    @jax.named_scope("evaluate")
    def batch_logits(state, examples):
        return _logits(model, state, view(examples))

    def logits(state, examples):
        batches = []
        for start in range(0, examples.shape[0], batch_size):
            batches.append(batch_logits(state, examples[start : start + batch_size]))
        return np.concatenate(batches)

    return logits


def _logits(model: Model, state: TrainState, examples: jax.Array) -> jax.Array:
    """The logits of a batch in evaluation mode, in float32."""
    outputs, _ = model.apply(state.evaluated, examples, train=False)
    return as_float32(outputs)
