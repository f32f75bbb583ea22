"""Optimizers: SGD with momentum as in appendix A, TensorFlow's RMSProp for Inception V3, and asynchronous workers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int
from ml_collections import ConfigDict


def decayed(params: Any) -> Any:
    """Which parameters weight decay acts on: kernels, the weights of convolutions and dense layers; not biases, nor
    the offsets and scales of batch norm. A tree of booleans of the shape of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def create(
    config: ConfigDict, steps_per_epoch: float | int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer that `config` describes, and its learning rate at each step."""
    reference = config.reference_batch_size
    rate = (
        scaled(config.learning_rate, config.batch_size, reference)
        if reference
        else config.learning_rate
    )
    learning_rate = schedule(
        rate, config.decay_per_epoch, steps_per_epoch, config.epochs_per_decay, config.warmup_epochs
    )
    optimizer = {"sgd": sgd, "rmsprop": rmsprop}[config.optimizer]
    return optimizer(
        learning_rate, config.momentum, config.weight_decay, config.workers
    ), learning_rate


def scaled(learning_rate: float, batch_size: int, reference_batch_size: int = 32) -> float:
    """The learning rate for `batch_size`, in proportion to it (Goyal et al. 2017, arXiv 1706.02677, section 2.1).

    `learning_rate` is that for `reference_batch_size`. TensorFlow's 0.045 for Inception V3 is the rate at which one
    update from one worker's 32 images is applied, however many workers there are: hence 32, not 50 * 32.
    """
    return learning_rate * batch_size / reference_batch_size


def schedule(
    learning_rate: float,
    decay: float,
    steps_per_epoch: float | int,
    epochs_per_decay: float = 1.0,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """Step -> learning rate: multiplied by `decay` after every `epochs_per_decay` epochs (appendix A: 0.95 after one;
    TensorFlow's recipe for Inception V3: 0.94 after two).

    In the first `warmup_epochs`, W steps, step t has the fraction (t + 1) / W of it (Goyal et al. 2017, section 2.2,
    but from zero).
    """
    staircase = optax.exponential_decay(
        learning_rate, max(1, round(steps_per_epoch * epochs_per_decay)), decay, staircase=True
    )
    warmup_steps = round(steps_per_epoch * warmup_epochs)
    if not warmup_steps:
        return staircase
    return lambda step: staircase(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def sgd(
    learning_rate: optax.Schedule, momentum: float, weight_decay: float, workers: int = 1
) -> optax.GradientTransformation:
    """SGD with momentum on the loss + weight_decay / 2 * (sum of squares of the `decayed` parameters).

    The penalty is an l2 term of the objective, as TensorFlow adds it: its gradient goes through the momentum, and with
    `workers` comes as late as the rest: see `delayed_gradients`.
    """
    return optax.chain(_gradients(weight_decay, workers), optax.sgd(learning_rate, momentum))


def rmsprop(
    learning_rate: optax.Schedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    workers: int = 1,
    decay: float = 0.9,
    epsilon: float = 1.0,
) -> optax.GradientTransformation:
    """RMSProp as in TensorFlow, on the objective of `sgd`, with the constants of its recipe for Inception V3.

        s <- decay s + (1 - decay) g^2
        m <- momentum m + learning_rate g / sqrt(s + epsilon)
        parameters <- parameters - m

    with s = 1 and m = 0 before the first step (tf.compat.v1.train.RMSPropOptimizer). Optax's own defaults are s = 0,
    and PyTorch has epsilon outside of the root; both matter when epsilon is 1.
    """
    tensorflow = optax.rmsprop(
        learning_rate, decay, epsilon, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum
    )
    return optax.chain(_gradients(weight_decay, workers), tensorflow)


def _gradients(weight_decay: float, workers: int) -> optax.GradientTransformation:
    """What comes before an optimizer: gradient of the loss -> late gradient of the penalized loss."""
    penalty = optax.add_decayed_weights(weight_decay, decayed) if weight_decay else optax.identity()
    # One worker adds nothing to the optimizer's state, so that what was saved before there were workers can be loaded.
    return penalty if workers == 1 else optax.chain(penalty, delayed_gradients(workers))


class DelayState(NamedTuple):
    """The last `workers` gradients, that of step t in row t mod workers."""

    step: Int[Array, ""]
    history: Any


def delayed_gradients(workers: int) -> optax.GradientTransformation:
    """Applies at step t the gradient computed at step t - workers + 1; the first workers - 1 steps apply zero.

    So do `workers` asynchronous workers that take turns: in each step one fetches the parameters and starts on a batch
    while another, which fetched them workers - 1 steps ago, has its gradient applied and is the next to fetch. The
    paper's ImageNet runs have 50. One worker is ordinary SGD. The state holds `workers` copies of the parameters.
    Momentum and accumulators come after it, as they are kept where the parameters are; they see the zeros too.
    Raises ValueError for less than one worker.
    """
    if workers < 1:
        raise ValueError(f"delayed_gradients(workers={workers}): at least one worker is needed")
    if workers == 1:
        return optax.identity()

    def init(params):
        history = jax.tree.map(
            lambda param: jnp.zeros((workers, *param.shape), param.dtype), params
        )
        return DelayState(jnp.zeros((), jnp.int32), history)

    def update(grads, state, params=None):
        # Written before the oldest is read, in another row, so that XLA need not copy the whole history in every step.
        newest, oldest = state.step % workers, (state.step + 1) % workers
        history = jax.tree.map(
            lambda history, grad: history.at[newest].set(grad), state.history, grads
        )
        late = jax.tree.map(lambda history: history[oldest], history)
        return late, DelayState(state.step + 1, history)

    return optax.GradientTransformation(init, update)


class AverageState(NamedTuple):
    """A moving average, and how many values went into it."""

    step: Int[Array, ""]
    average: Any


def moving_average(decay: float) -> optax.GradientTransformation:
    """A moving average of a tree of values that change from step to step, with the interface of `optax.ema`.

    `state = init(values)`; after each step `average, state = update(values, state)`. It starts as the first values;
    the t-th update keeps the fraction min(decay, (1 + t) / (10 + t)) of it, as TensorFlow's ExponentialMovingAverage
    with `num_updates` does, so that the average follows a short run too. TensorFlow's recipe for Inception V3 evaluates
    with the average, decay 0.9999, of parameters and batch statistics alike.
    """

    def init(values):
        # Copies: a step that reuses the buffers of the values must not overwrite the average.
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, values))

    def update(values, state, params=None):
        step = state.step + 1
        replaced = jnp.maximum(1 - decay, 9 / (10 + step))
        average = optax.incremental_update(values, state.average, replaced)
        return average, AverageState(step, average)

    return optax.GradientTransformation(init, update)
