"""A whole epoch as one compiled program: shuffle, gather, augment, whiten, step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rethinking.sharding import DataParallel
from rethinking.training.state import TrainState

# Streams of randomness within a seed; initialization uses the seed's own key.
ORDER, AUGMENT, DROPOUT = 1, 2, 3


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation, devices: DataParallel, batch_size: int
) -> Callable:
    """A function (state, images, labels, dropout key) -> (state, mean loss over the global batch).

    For use within `devices.compile`: each device calls it with its own part of the batch. Gradients are those of the
    mean loss over the global batch; batch norm sees the device's own part, as the paper's workers did, unless the model
    names an axis to average over.
    """

    def train_step(state: TrainState, images, labels, key):
        def mean_loss(params):
            variables = {"params": params, **state.model_state}
            logits, model_state = model.apply(
                variables, images, train=True, mutable=list(state.model_state), rngs={"dropout": key}
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            # Differentiating this with respect to parameters that all devices share adds up their gradients.
            return devices.sum(losses.sum()) / batch_size, model_state

        (loss, model_state), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=devices.mean(dict(model_state)),
            opt_state=opt_state,
        ), loss

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

    def key(stream, seed, epoch):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), epoch)

    def shuffle(labels, seed, epoch):
        num = labels.shape[0]
        order = jax.random.permutation(key(ORDER, seed, epoch), num)
        return order[: num // batch_size * batch_size].reshape(-1, batch_size)

    def step(state, images, labels, indices, seed, epoch, rows):
        local = batch_size // devices.size
        device = devices.index()
        rows = lax.dynamic_slice_in_dim(rows, device * local, local)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key(AUGMENT, seed, epoch), indices[rows])
        dropout_key = jax.random.fold_in(jax.random.fold_in(key(DROPOUT, seed, epoch), state.step), device)
        return train_step(state, view(images[rows], keys), labels[rows], dropout_key)

    def scanned_epoch(state, images, labels, indices, seed, epoch):
        state, losses = lax.scan(
            lambda state, rows: step(state, images, labels, indices, seed, epoch, rows),
            state, shuffle(labels, seed, epoch),
        )  # fmt: skip
        return state, losses.mean()

    if scan:
        return devices.compile(scanned_epoch, donate_argnums=(0,))
    compiled_shuffle, compiled_step = devices.compile(shuffle), devices.compile(step, donate_argnums=(0,))

    def stepped_epoch(state, images, labels, indices, seed, epoch):
        losses = []
        for rows in compiled_shuffle(labels, seed, epoch):
            state, loss = compiled_step(state, images, labels, indices, seed, epoch, rows)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    return stepped_epoch


def use_scan(params: Any) -> bool:
    """Whether a network with these parameters should be trained by one program per epoch: always, but for convolutions
    on a CPU, whose gradients XLA computes some thirty times slower inside of a loop (jax issue 12868)."""
    return jax.default_backend() != "cpu" or all(param.ndim <= 2 for param in jax.tree.leaves(params))
