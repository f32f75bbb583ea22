"""Small AlexNet for CIFAR10 (appendix A), and its local response normalization."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers
from rethinking.models.pooling import max_pool

# TensorFlow's CIFAR10 tutorial, which has the same network; the paper states no constants.
LRN_RADIUS = 4
LRN_ALPHA = 0.001 / 9


def local_response_norm(
    x: Float[Array, "*positions channels"],
) -> Float[Array, "*positions channels"]:
    """x_c / (1 + alpha sum_{|i - c| <= radius} x_i^2)^0.75 at each position: Krizhevsky et al. (2012), section 3.3.

    Statistics are in float32, the result has the dtype of x.
    """
    channel = np.arange(x.shape[-1])
    window = np.abs(channel[:, None] - channel) <= LRN_RADIUS
    # One product with a banded matrix. Forward and backward of 128x28x28x64 on 2 CPU cores: 39 ms; reduce_window 50,
    # differences of a cumsum 78, a sum of slices 158.
    squares = jnp.square(x.astype(jnp.float32))
    sums = jnp.matmul(squares, window.astype(np.float32), precision=lax.Precision.HIGHEST)
    # rsqrt(d) sqrt(rsqrt(d)) = d^-0.75, cheaper than a general power.
    root = lax.rsqrt(1 + LRN_ALPHA * sums)
    return x * (root * jnp.sqrt(root)).astype(x.dtype)


class AlexNet(nn.Module):
    """Twice (convolution 5x5 of 64, ReLU, max-pool 3x3 with stride 2, local response normalization), then dense
    layers of 384 and 192 with ReLU, and a linear classifier. No dropout (appendix A).
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Logits of a batch of images, in float32; the same in training and evaluation.

        Raises InputError for images smaller than 4x4.
        """
        layers.check_size(x, 4, "Small AlexNet")
        for _ in range(2):
            x = nn.relu(layers.Conv(64, (5, 5), dtype=self.dtype)(x))
            x = max_pool(x)
            x = local_response_norm(x)
        x = x.reshape(x.shape[0], -1)
        for width in (384, 192):
            x = nn.relu(layers.Dense(width, dtype=self.dtype)(x))
        return layers.Classifier(self.num_classes)(x)
