"""What the networks share: initialization, convolution, pooling, classifier, and the check of an image's size."""

from functools import partial, reduce

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from rethinking.config import ConfigError
from rethinking.models.convolution import convolve

# Glorot and Bengio (2010) for every network's kernels, biases zero: the default of TensorFlow slim, whose defaults also
# explain the paper's parameter counts. The paper doesn't state it. He et al.'s twice larger variance won't do:
# Inception without batch norm diverges from it within an epoch at the paper's learning rate of 0.1.
kernel_init = nn.initializers.glorot_uniform()

# Convolutions pad to SAME, and have a bias unless a batch norm follows, whose offset does the same.
Conv = partial(nn.Conv, padding="SAME", kernel_init=kernel_init, conv_general_dilated_cls=lambda: convolve)
Dense = partial(nn.Dense, kernel_init=kernel_init)
# The last layer: logits are float32 whatever the dtype of the computation before.
Classifier = partial(Dense, dtype=jnp.float32)


def check_size(x: Float[Array, "batch height width channels"], minimum: int, network: str) -> None:
    """Raises ConfigError where images are smaller than `minimum` pixels on a side, too small for `network`."""
    height, width = x.shape[1:3]
    if min(height, width) < minimum:
        raise ConfigError(
            f"{network} takes images of at least {minimum}x{minimum} pixels, for it halves their size more than once; "
            f"these are {height}x{width}. Raise config.data.crop_size or choose an MLP, which takes any size."
        )


def max_pool(
    x: Float[Array, "batch height width channels"], padding: str = "SAME"
) -> Float[Array, "batch _ _ channels"]:
    """The maximum over each window of 3x3 pixels, with stride 2; `padding` is "SAME" or "VALID", as in TensorFlow.

    Its gradient goes to the first pixel that has the maximum on a TPU, and is shared by all that have it elsewhere: XLA
    scatters the gradient of a window's maximum, on a GPU by atomic additions, whose order and therefore sum differ from
    run to run, and on a CPU slowly; TPUs have a program of their own for it.
    """
    pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding=padding)
    return lax.platform_dependent(x, tpu=pool, default=partial(_maximum_of_shifts, padding=padding))


def _maximum_of_shifts(x, padding: str):
    """`max_pool` as maxima of shifted images, along one axis after the other."""
    pads = lax.padtype_to_pads(x.shape[1:3], (3, 3), (2, 2), padding)
    for axis in (2, 1):
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(*pads[i - 1], 0) if i == axis else (0, 0, 0) for i in range(4)])
        size = x.shape[axis] - 2
        x = reduce(jnp.maximum, [lax.slice_in_dim(x, start, start + size, 2, axis) for start in range(3)])
    return x
