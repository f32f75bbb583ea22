"""Optimizers, learning rates and moving averages.

SGD with momentum follows the paper's appendix A. RMSProp follows TensorFlow, for Inception V3.
AdamW is for today's networks. All can imitate asynchronous workers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


def decayed(params: Any) -> Any:
    """A tree of booleans of the shape of `params`: whether weight decay acts on a parameter.

    It acts on every parameter of two or more dimensions, whatever its name. These are the weights
    of convolutions and dense layers. It does not act on parameters of one dimension, such as biases
    and the offsets and scales of batch norm.

    The rule knows no names, so it also acts on a table of positions or tokens, and on the biases of
    `flax.linen.MultiHeadDotProductAttention`, which are [heads, features]. The Vision Transformer
    of this project has no such biases.
    """
    return jax.tree.map(lambda param: param.ndim >= 2, params)


def scaled(learning_rate: float, batch_size: int, reference_batch_size: int = 32) -> float:
    """The learning rate for `batch_size`, in proportion to it.

    `learning_rate` is the rate for `reference_batch_size`. The rule is that of Goyal et al. 2017
    (arXiv 1706.02677, section 2.1). TensorFlow's 0.045 for Inception V3 is the rate of one update
    from the 32 images of one worker. It does not depend on the number of workers, so the reference
    is 32, not 50 * 32.
    """
    return learning_rate * batch_size / reference_batch_size


def schedule(
    learning_rate: float,
    decay: float,
    steps_per_epoch: float | int,
    epochs_per_decay: float = 1.0,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """A function step -> learning rate; `decay` multiplies it every `epochs_per_decay` epochs.

    Appendix A of the paper multiplies by 0.95 after every epoch, TensorFlow's recipe for Inception
    V3 by 0.94 after every second one. The first `warmup_epochs` have W steps, and step t of them
    has (t + 1) / W of the learning rate (Goyal et al. 2017, section 2.2, but from zero).
    """
    # Steps are counted with 32 bits, so a decay after more steps never comes.
    steps_per_decay = min(max(1, round(steps_per_epoch * epochs_per_decay)), 2**31 - 1)
    staircase = optax.exponential_decay(learning_rate, steps_per_decay, decay, staircase=True)
    return _warmed(staircase, round(steps_per_epoch * warmup_epochs))


def cosine(learning_rate: float, num_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """A function step -> learning rate, which falls to zero at `num_steps` along half a cosine.

    This is the annealing of Loshchilov and Hutter 2017 (arXiv 1608.03983, equation 5) without
    restarts. The cosine begins after the warmup, which is that of `schedule`.
    Raises ValueError unless the warmup ends before the run.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"cosine: {warmup_steps} steps of warmup are not fewer than {num_steps}")
    falling = optax.cosine_decay_schedule(learning_rate, num_steps - warmup_steps)

    def after_warmup(step):
        return falling(jnp.maximum(step - warmup_steps, 0).astype(jnp.float32))

    return _warmed(after_warmup, warmup_steps)


def _warmed(schedule: optax.Schedule, warmup_steps: int) -> optax.Schedule:
    """`schedule`, with step t of the first W steps at (t + 1) / W of its learning rate."""
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def sgd(
    learning_rate: optax.Schedule, momentum: float, weight_decay: float, workers: int = 1
) -> optax.GradientTransformation:
    """SGD with momentum on the loss + weight_decay / 2 * (sum of squares of `decayed` parameters).

    The penalty is a term of the objective, as in TensorFlow: its gradient goes through the
    momentum. With several `workers` it also comes late, like the rest: see `delayed_gradients`.
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
    """TensorFlow's RMSProp on the objective of `sgd`; defaults are its recipe for Inception V3.

        s <- decay s + (1 - decay) g^2
        m <- momentum m + learning_rate g / sqrt(s + epsilon)
        parameters <- parameters - m

    Before the first step s = 1 and m = 0 (tf.compat.v1.train.RMSPropOptimizer). Optax starts with
    s = 0 by default, and PyTorch adds epsilon outside the root. Both matter when epsilon is 1.
    """
    tensorflow = optax.rmsprop(
        learning_rate, decay, epsilon, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum
    )
    return optax.chain(_gradients(weight_decay, workers), tensorflow)


def adamw(
    learning_rate: optax.Schedule, weight_decay: float = 0.0, workers: int = 1
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), with beta 0.9, 0.999 and epsilon 1e-8.

    Unlike in `sgd`, weight decay is not a term of the objective. Each step takes learning_rate *
    weight_decay of every `decayed` parameter away, as in PyTorch. With several `workers` the
    gradients come late, but weight decay does not, since it needs no gradient.
    """
    adam = optax.adamw(learning_rate, weight_decay=weight_decay, mask=decayed)

    def update(grads, state, params=None):
        # Optax raises a number to the step's power. Strict promotion of dtypes refuses that.
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(grads, state, params)

    return late(optax.GradientTransformation(adam.init, update), workers)


def late(optimizer: optax.GradientTransformation, workers: int) -> optax.GradientTransformation:
    """`optimizer` on gradients that come late: see `delayed_gradients`."""
    return optimizer if workers == 1 else optax.chain(delayed_gradients(workers), optimizer)


def _gradients(weight_decay: float, workers: int) -> optax.GradientTransformation:
    """Turns gradients of the loss into those of the penalized loss; late with several workers."""
    penalty = optax.add_decayed_weights(weight_decay, decayed) if weight_decay else optax.identity()
    if workers == 1:
        # Keeps the structure of the state in older checkpoints, saved before `workers` existed.
        return penalty
    return optax.chain(penalty, delayed_gradients(workers))


class DelayState(NamedTuple):
    """The gradients of the last `workers` steps; row t mod workers has that of step t."""

    step: Int[Array, ""]
    history: Any


def delayed_gradients(workers: int) -> optax.GradientTransformation:
    """Applies at step t the gradient of step t - workers + 1; zero in the first steps.

    This imitates `workers` asynchronous workers that take turns. In each step one worker fetches
    the parameters and starts on a batch. In the same step another worker's gradient is applied.
    That worker fetched its parameters workers - 1 steps ago, and is the next to fetch. The paper's
    ImageNet runs have 50 workers. One worker is ordinary SGD.

    The state holds `workers` copies of the parameters. Momentum and accumulators come after the
    delay because they belong to the parameters' server; they see the zeros too. Raises ValueError
    for fewer than one worker.
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
        # The newest gradient is written to another row before the oldest is read. So XLA need not
        # copy the whole history in every step.
        newest, oldest = state.step % workers, (state.step + 1) % workers
        history = jax.tree.map(
            lambda history, grad: history.at[newest].set(grad), state.history, grads
        )
        late = jax.tree.map(lambda history: history[oldest], history)
        return late, DelayState(state.step + 1, history)

    return optax.GradientTransformation(init, update)


class AverageState(NamedTuple):
    """A moving average, and the number of values in it."""

    step: Int[Array, ""]
    average: Any


def moving_average(decay: float) -> optax.GradientTransformation:
    """A moving average of a tree of values, with the interface of `optax.ema`.

    Call `state = init(values)`, and after each step `average, state = update(values, state)`. The
    average starts as the first values. Update t keeps the fraction min(decay, (1 + t) / (10 + t))
    of it, as TensorFlow's ExponentialMovingAverage with `num_updates` does. So the average follows
    a short run too. TensorFlow's recipe for Inception V3 evaluates with the average of parameters
    and batch statistics, decay 0.9999.

    Averages of bfloat16 are float32, because small updates would be lost. Whole numbers, such as a
    counter, have no average: the last one is kept.
    """

    def init(values):
        def start(value):
            if jnp.issubdtype(value.dtype, jnp.floating):
                is_low = value.dtype.itemsize < 4
                return value.astype(jnp.float32 if is_low else value.dtype, copy=True)
            return jnp.copy(value)

        # Copies, because a step may reuse the buffers of the values.
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(start, values))

    def update(values, state, params=None):
        step = state.step + 1
        replaced = jnp.maximum(1 - decay, 9 / (10 + step))

        def averaged(new, old):
            if jnp.issubdtype(new.dtype, jnp.floating):
                return optax.incremental_update(new.astype(old.dtype), old, replaced)
            return new

        average = jax.tree.map(averaged, values, state.average)
        return average, AverageState(step, average)

    return optax.GradientTransformation(init, update)
