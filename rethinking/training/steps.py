"""Training steps, alone or in a program for a whole epoch; on resident data or streamed batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rethinking.models.adapters import Model
from rethinking.sharding import DataParallel
from rethinking.training.losses import cross_entropy
from rethinking.training.state import TrainState, variables

# Streams of randomness within a seed. Initialization uses the seed's own key.
ORDER, AUGMENT, DROPOUT = 1, 2, 3


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    devices: DataParallel,
    batch_size: int,
    smoothing: float = 0.0,
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function (state, images, labels, dropout key[, weights]) -> (state, mean loss).

    It is for use within `devices.compile`: each device calls it with its own part of the batch. The
    gradients belong to the mean loss over the whole batch of `batch_size`. An example counts 1, or
    its weight. Batch norm sees the device's own part, as the paper's workers did, unless the model
    names an axis to average over.

    `smoothing` is that of `losses.cross_entropy`. `averager` updates the state's moving average.
    """

    def train_step(state: TrainState, images, labels, key, weights=None):
        def mean_loss(params):
            outputs, model_state = model.apply(
                variables(params, state.model_state), images, train=True, key=key
            )
            losses = cross_entropy(outputs, labels, smoothing)
            if weights is not None:
                losses = losses * weights
            # All devices share the parameters, so the gradient of this is summed over the devices.
            return devices.sum(losses.sum()) / batch_size, model_state

        with jax.named_scope("forward"):
            loss, pull_back, model_state = jax.vjp(mean_loss, state.params, has_aux=True)
        with jax.named_scope("backward"):
            (grads,) = pull_back(jnp.ones_like(loss))
        with jax.named_scope("update"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            model_state = devices.mean(dict(model_state))
            average = ()
            if averager:
                average = averager.update(variables(params, model_state), state.average)[1]
        return TrainState(state.step + 1, params, model_state, opt_state, average), loss

    return train_step


def make_train_epoch(
    train_step: Callable, devices: DataParallel, batch_size: int, view: Callable
) -> Callable:
    """A function (state, images, labels, indices, seed, epoch) -> (state, mean loss of the steps).

    It is one compiled program for a whole epoch: a fresh permutation, without its last
    n mod batch_size examples. It reuses the buffers of the state that it gets, so callers must not
    use that state again. See `use_scan`.

    Args:
        train_step: see `make_train_step`.
        devices: those that share a batch. Each has all `images` [n, ...], `labels` [n] and
            `indices` [n], the positions in the source, on which augmentation depends.
        batch_size: over all devices.
        view: a function (stored images, one key per image) -> what the network sees.
    """
    shuffle = make_shuffle(batch_size)
    step = make_indexed_step(train_step, devices, batch_size, view)

    def epoch_of_steps(state, images, labels, indices, seed, epoch):
        state, losses = lax.scan(
            lambda state, rows: step(state, images, labels, indices, seed, epoch, rows),
            state,
            shuffle(labels, seed, epoch),
        )
        return state, losses.mean()

    return devices.compile(epoch_of_steps, donate_argnums=(0,))


def make_shuffle(batch_size: int) -> Callable:
    """A function (labels, seed, epoch) -> rows [steps, batch_size], the examples of each step."""

    def shuffle(labels, seed, epoch):
        num = labels.shape[0]
        order = jax.random.permutation(_key(seed, ORDER, epoch), num)
        return order[: num // batch_size * batch_size].reshape(-1, batch_size)

    return shuffle


def make_indexed_step(
    train_step: Callable, devices: DataParallel, batch_size: int, view: Callable
) -> Callable:
    """A training step on the examples `rows` [batch_size] of all that are on each device.

    It is a function (state, images, labels, indices, seed, epoch, rows) -> (state, loss), for use
    within `devices.compile`.
    """

    def step(state, images, labels, indices, seed, epoch, rows):
        local = batch_size // devices.size
        device = devices.index()
        with jax.named_scope("gather"):
            rows = lax.dynamic_slice_in_dim(rows, device * local, local)
            chosen, chosen_labels, places = images[rows], labels[rows], indices[rows]
        with jax.named_scope("augment"):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(_key(seed, AUGMENT, epoch), places)
            seen = view(chosen, keys)
        dropout_key = jax.random.fold_in(
            jax.random.fold_in(_key(seed, DROPOUT, epoch), state.step), device
        )
        return train_step(state, seen, chosen_labels, dropout_key)

    return step


def make_batch_step(train_step: Callable, devices: DataParallel, view: Callable) -> Callable:
    """A training step (state, batch, seed) -> (state, loss), for use within `devices.compile`.

    `batch` is a device's part of a `data.stream.Batch`. `view` is a function (images, one key per
    image) -> what the network sees.
    """

    def step(state, batch, seed):
        with jax.named_scope("augment"):
            keys = jax.vmap(
                lambda epoch, index: jax.random.fold_in(_key(seed, AUGMENT, epoch), index)
            )(batch.epochs, batch.indices)
            seen = view(batch.images, keys)
        dropout_key = jax.random.fold_in(_key(seed, DROPOUT, state.step), devices.index())
        return train_step(state, seen, batch.labels, dropout_key, batch.weights)

    return step


def make_streamed_step(train_step: Callable, devices: DataParallel, view: Callable) -> Callable:
    """`make_batch_step`, compiled to run on every device, for arrays split over the devices.

    The function reuses the buffers of the state that it gets, so callers must not use that state
    again.
    """
    step = make_batch_step(train_step, devices, view)
    return devices.compile(step, donate_argnums=(0,), split_argnums=(1,))


def _key(seed, stream: int, number):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), number)


def use_scan(params: Any) -> bool:
    """Whether one program per epoch is the fastest way to train a network with these parameters.

    It is, except for convolutions on a CPU: XLA computes their gradients some thirty times slower
    within a loop (jax issue 12868).
    """
    has_convolutions = any(param.ndim > 2 for param in jax.tree.leaves(params))
    return jax.default_backend() != "cpu" or not has_convolutions
