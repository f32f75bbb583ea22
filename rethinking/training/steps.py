"""A whole epoch as one compiled program: shuffle, gather, augment, whiten, step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rethinking.sharding import DataParallel
from rethinking.training.losses import cross_entropy
from rethinking.training.state import TrainState, variables

# Streams of randomness within a seed; initialization uses the seed's own key.
ORDER, AUGMENT, DROPOUT = 1, 2, 3


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    devices: DataParallel,
    batch_size: int,
    smoothing: float = 0.0,
    averager: optax.GradientTransformation | None = None,
) -> Callable:
    """A function (state, images, labels, dropout key[, weights]) -> (state, mean loss over the global batch).

    For use within `devices.compile`: each device calls it with its own part of the batch. Gradients are those of the
    mean loss over the global batch, of examples that count 1, or as much as `weights` say; batch norm sees the device's
    own part, as the paper's workers did, unless the model names an axis to average over. `smoothing` is that of
    `losses.cross_entropy`; `averager` keeps the state's average up to date, if it has one.
    """

    def train_step(state: TrainState, images, labels, key, weights=None):
        def mean_loss(params):
            outputs, model_state = model.apply(
                variables(params, state.model_state),
                images,
                train=True,
                mutable=list(state.model_state),
                rngs={"dropout": key},
            )
            losses = cross_entropy(outputs, labels, smoothing)
            if weights is not None:
                losses = losses * weights
            # Differentiating this with respect to parameters that all devices share adds up their gradients.
            return devices.sum(losses.sum()) / batch_size, model_state

        (loss, model_state), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params, model_state = (
            optax.apply_updates(state.params, updates),
            devices.mean(dict(model_state)),
        )
        average = (
            averager.update(variables(params, model_state), state.average)[1] if averager else ()
        )
        return TrainState(state.step + 1, params, model_state, opt_state, average), loss

    return train_step


def make_train_epoch(
    train_step: Callable, devices: DataParallel, batch_size: int, view: Callable, scan: bool = True
) -> Callable:
    """A function (state, images, labels, indices, seed, epoch) -> (state, mean loss over the epoch's steps).

    `images` [n, h, w, c], `labels` [n] and `indices` [n] (positions in the source, which augmentation draws depend
    on) are on every device. Each epoch is a fresh permutation, of which the n mod batch_size last are left out.
    `view(images, keys)` makes of stored images what the network sees, with one key per example.
    The state's buffers are reused: the one passed in is gone afterwards.

    With `scan` the epoch is one compiled program; without, a program per step that Python calls. See `use_scan`.
    """

    def shuffle(labels, seed, epoch):
        num = labels.shape[0]
        order = jax.random.permutation(_key(seed, ORDER, epoch), num)
        return order[: num // batch_size * batch_size].reshape(-1, batch_size)

    def step(state, images, labels, indices, seed, epoch, rows):
        local = batch_size // devices.size
        device = devices.index()
        rows = lax.dynamic_slice_in_dim(rows, device * local, local)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(_key(seed, AUGMENT, epoch), indices[rows])
        dropout_key = jax.random.fold_in(
            jax.random.fold_in(_key(seed, DROPOUT, epoch), state.step), device
        )
        return train_step(state, view(images[rows], keys), labels[rows], dropout_key)

    def scanned_epoch(state, images, labels, indices, seed, epoch):
        state, losses = lax.scan(
            lambda state, rows: step(state, images, labels, indices, seed, epoch, rows),
            state,
            shuffle(labels, seed, epoch),
        )
        return state, losses.mean()

    if scan:
        return devices.compile(scanned_epoch, donate_argnums=(0,))
    compiled_shuffle, compiled_step = (
        devices.compile(shuffle),
        devices.compile(step, donate_argnums=(0,)),
    )

    def stepped_epoch(state, images, labels, indices, seed, epoch):
        losses = []
        for rows in compiled_shuffle(labels, seed, epoch):
            state, loss = compiled_step(state, images, labels, indices, seed, epoch, rows)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    return stepped_epoch


def make_streamed_step(train_step: Callable, devices: DataParallel, view: Callable) -> Callable:
    """A function (state, batch, seed) -> (state, loss), where each device has its own part of the batch.

    `batch` is a `data.stream.Batch` of arrays split over the devices; `view(images, keys)` makes of its images what the
    network sees, with one key per example. The state's buffers are reused: the one passed in is gone afterwards.
    """

    def step(state, batch, seed):
        keys = jax.vmap(lambda epoch, index: jax.random.fold_in(_key(seed, AUGMENT, epoch), index))(
            batch.epochs, batch.indices
        )
        dropout_key = jax.random.fold_in(_key(seed, DROPOUT, state.step), devices.index())
        return train_step(state, view(batch.images, keys), batch.labels, dropout_key, batch.weights)

    return devices.compile(step, donate_argnums=(0,), split_argnums=(1,))


def _key(seed, stream: int, number):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), number)


def use_scan(params: Any) -> bool:
    """Whether a network with these parameters should be trained by one program per epoch: always, but for convolutions
    on a CPU, whose gradients XLA computes some thirty times slower inside of a loop (jax issue 12868)."""
    return jax.default_backend() != "cpu" or all(
        param.ndim <= 2 for param in jax.tree.leaves(params)
    )
