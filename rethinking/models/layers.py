"""What the networks share: initialization, batch normalization, classifier, and the check of an image's size."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rethinking.config import ConfigError

# Glorot and Bengio (2010) for every network's kernels, biases zero: the default of TensorFlow slim, whose defaults also
# explain the paper's parameter counts. The paper doesn't state it. He et al.'s twice larger variance won't do:
# Inception without batch norm diverges from it within an epoch at the paper's learning rate of 0.1.
kernel_init = nn.initializers.glorot_uniform()

# The defaults of `tf.layers.batch_normalization`; TensorFlow slim has the same epsilon. The paper states neither.
BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3

# Convolutions pad to SAME, and have a bias unless a batch norm follows, whose offset does the same.
Conv = partial(nn.Conv, padding="SAME", kernel_init=kernel_init)
Dense = partial(nn.Dense, kernel_init=kernel_init)
# The last layer: logits are float32 whatever the dtype of the computation before.
Classifier = partial(Dense, dtype=jnp.float32)


class BatchNorm(nn.BatchNorm):
    """Batch normalization with an offset but no scale, slim's default. Mean and variance are computed, applied and
    kept in float32, whatever the dtype of x, which is that of the result.
    """

    use_scale: bool = False
    momentum: float = BATCH_NORM_MOMENTUM
    epsilon: float = BATCH_NORM_EPSILON

    def __call__(self, x: Float[Array, "*positions channels"]) -> Float[Array, "*positions channels"]:
        """Normalizes each channel; with `use_running_average`, by the statistics in `batch_stats`."""
        # Flax promotes x in some places only; the explicit casts cost nothing, as XLA fuses them with the arithmetic.
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


def check_size(x: Float[Array, "batch height width channels"], minimum: int, network: str) -> None:
    """Raises ConfigError where images are smaller than `minimum` pixels on a side, too small for `network`."""
    height, width = x.shape[1:3]
    if min(height, width) < minimum:
        raise ConfigError(
            f"{network} takes images of at least {minimum}x{minimum} pixels, for it halves their size more than once; "
            f"these are {height}x{width}. Raise config.data.crop_size or choose an MLP, which takes any size."
        )
