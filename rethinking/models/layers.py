"""What the networks share: initialization, convolution, classifier, and the check of an image's size."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rethinking.errors import InputError
from rethinking.models.convolution import convolve

# Glorot and Bengio (2010) for every network's kernels, biases zero: the default of TensorFlow slim, whose defaults also
# explain the paper's parameter counts. The paper doesn't state it. He et al.'s twice larger variance won't do:
# Inception without batch norm diverges from it within an epoch at the paper's learning rate of 0.1.
kernel_init = nn.initializers.glorot_uniform()

# Convolutions pad to SAME, and have a bias unless a batch norm follows, whose offset does the same.
Conv = partial(
    nn.Conv, padding="SAME", kernel_init=kernel_init, conv_general_dilated_cls=lambda: convolve
)
Dense = partial(nn.Dense, kernel_init=kernel_init)
# The last layer: logits are float32 whatever the dtype of the computation before.
Classifier = partial(Dense, dtype=jnp.float32)


def check_size(x: Float[Array, "batch height width channels"], minimum: int, network: str) -> None:
    """Raises InputError where images are smaller than `minimum` pixels on a side, too small for `network`."""
    height, width = x.shape[1:3]
    if min(height, width) < minimum:
        raise InputError(
            f"{network} takes images of at least {minimum}x{minimum} pixels, for it halves their size more than once; "
            f"these are {height}x{width}. Raise config.data.crop_size or choose an MLP, which takes any size."
        )
