"""Optimizers: SGD with momentum as in appendix A."""

from typing import Any

import jax
import optax


def decayed(params: Any) -> Any:
    """Which parameters weight decay acts on: kernels, the weights of convolutions and dense layers; not biases, nor
    the offsets and scales of batch norm. A tree of booleans of the shape of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def schedule(learning_rate: float, decay_per_epoch: float, steps_per_epoch: int) -> optax.Schedule:
    """Step -> learning rate: multiplied by `decay_per_epoch` after every epoch (appendix A)."""
    return optax.exponential_decay(learning_rate, steps_per_epoch, decay_per_epoch, staircase=True)


def sgd(learning_rate: optax.Schedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with momentum on the loss + weight_decay / 2 * (sum of squares of the `decayed` parameters).

    The penalty is an l2 term of the objective, as TensorFlow adds it: its gradient goes through the momentum.
    """
    penalty = optax.add_decayed_weights(weight_decay, decayed) if weight_decay else optax.identity()
    return optax.chain(penalty, optax.sgd(learning_rate, momentum))
