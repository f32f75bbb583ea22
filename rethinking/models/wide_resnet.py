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
    """Twice (normalization, ReLU, convolution 3x3), added to the input.

    Where the width changes, the shortcut is a 1x1 convolution of the input after its first normalization and ReLU.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch _ _ {self.features}"]:
        """Shrinks height and width by the stride, rounded up."""
        strides = (self.stride, self.stride)
        y = nn.relu(self.norm()(x))
        shortcut = (
            x
            if x.shape[-1] == self.features
            else self.conv(self.features, (1, 1), strides=strides)(y)
        )
        y = self.conv(self.features, (3, 3), strides=strides)(y)
        y = nn.relu(self.norm()(y))
        return shortcut + self.conv(self.features, (3, 3))(y)


class WideResNet(nn.Module):
    """Three groups of (depth - 4) / 6 residual blocks, with 16, 32 and 64 times `widening` channels.

    WRN-28-1 has 369,498 parameters, the count of the demo repository, in the variant of the Wide ResNet paper:
    pre-activation; no bias in convolutions; batch norm with scale and offset, and once more before the mean over
    positions; a shortcut is a convolution, without batch norm, only where the width changes, hence not in the first
    group of WRN-28-1. (The count alone would allow post-activation too.) No dropout.
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
        """Logits of a batch of images, in float32. In training, statistics are the batch's, and `batch_stats` change.

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
