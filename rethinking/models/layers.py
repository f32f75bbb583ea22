"""Parts that the networks share: initialization, convolution, classifier, check of image sizes."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from rethinking.errors import InputError
from rethinking.models.convolution import convolve

# Kernels are initialized as in Glorot and Bengio (2010), and biases are zero. The paper does not
# state it. It is the default of TensorFlow slim, and slim's defaults explain the paper's parameter
# counts. He et al.'s variance is twice as large. With it, Inception without batch norm diverges
# within an epoch at the paper's learning rate of 0.1.
kernel_init = nn.initializers.glorot_uniform()

# Convolutions pad to SAME. They have no bias before a batch norm, whose offset does the same.
Conv = partial(
    nn.Conv, padding="SAME", kernel_init=kernel_init, conv_general_dilated_cls=lambda: convolve
)
Dense = partial(nn.Dense, kernel_init=kernel_init)
# The last layer. Its logits are float32, whatever the dtype of the computation before it.
Classifier = partial(Dense, dtype=jnp.float32)


def check_images(x: Num[Array, "batch *example"], network: str) -> None:
    """Raises InputError unless these are images."""
    if x.ndim != 4:
        raise InputError(
            f"{network} takes images [batch, height, width, channels], but these are examples of "
            f"shape {x.shape[1:]}. Use an MLP, which takes vectors, or a network of your own."
        )


def check_size(x: Num[Array, "batch *example"], minimum: int, network: str) -> None:
    """Raises InputError unless these are images of at least `minimum` pixels on a side."""
    check_images(x, network)
    height, width = x.shape[1:3]
    if min(height, width) < minimum:
        raise InputError(
            f"{network} needs images of at least {minimum}x{minimum} pixels, because it halves "
            f"their size more than once; these are {height}x{width}. Use a larger crop, or an MLP, "
            "which takes images of any size."
        )
