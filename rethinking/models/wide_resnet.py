"""Wide ResNet (Zagoruyko and Komodakis 2016), the network of the author's demo repository."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers
from rethinking.models.batch_norm import BatchNorm


class ResidualBlock(nn.Module):
    """Normalization, ReLU and a 3x3 convolution, twice; the result is added to the input.

    Where the number of features changes, the sum does not use the input itself. It uses the result
    of a 1x1 convolution after the first normalization and ReLU.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch _ _ {self.features}"]:
        """Returns features of the input's height and width divided by the stride, rounded up."""
        strides = (self.stride, self.stride)
        y = nn.relu(self.norm()(x))
        shortcut = x
        if x.shape[-1] != self.features:
            shortcut = self.conv(self.features, (1, 1), strides=strides)(y)
        y = self.conv(self.features, (3, 3), strides=strides)(y)
        y = nn.relu(self.norm()(y))
        return shortcut + self.conv(self.features, (3, 3))(y)


class WideResNet(nn.Module):
    """Three groups of residual blocks, with 16, 32 and 64 times `widening` channels.

    Each group has (depth - 4) / 6 blocks. This is the variant of the Wide ResNet paper.
    Normalization and activation come before each convolution. Convolutions have no bias. Batch
    norms have a scale and an offset, and one more stands before the mean over positions. A shortcut
    is a convolution, without batch norm, only where the number of channels changes. The first group
    of WRN-28-1 needs no such convolution. There is no dropout.

    WRN-28-1 has 369,498 parameters, as in the demo repository. That count would also fit a network
    with the activation after each convolution.
    """

    num_classes: int
    depth: int = 28
    widening: int = 1
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Returns the logits of a batch of images, in float32.

        In training, batch norm uses the statistics of the batch and updates `batch_stats`.
        Raises InputError for images smaller than 4x4.
        """
        layers.check_size(x, 4, "Wide ResNet")
        conv = partial(layers.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(
            BatchNorm, use_scale=True, use_running_average=not train, axis_name=self.bn_axis_name
        )
        x = conv(16, (3, 3))(x)
        for group in range(3):
            for index in range((self.depth - 4) // 6):
                stride = 2 if group > 0 and index == 0 else 1
                x = ResidualBlock(16 * 2**group * self.widening, conv, norm, stride)(x)
        x = nn.relu(norm()(x))
        return layers.Classifier(self.num_classes)(x.mean(axis=(1, 2), dtype=jnp.float32))
