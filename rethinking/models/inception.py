"""Small Inception for CIFAR10, with and without batch normalization (appendix A, figure 3)."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers
from rethinking.models.batch_norm import BatchNorm
from rethinking.models.pooling import max_pool


class ConvBlock(nn.Module):
    """Convolution, normalization and ReLU. Without `norm`, the convolution has a bias instead."""

    features: int
    kernel: int | tuple[int, int]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module] | None
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch _ _ {self.features}"]:
        """Returns features. Their height and width follow from stride and padding."""
        kernel = self.kernel
        if isinstance(kernel, int):
            kernel = (kernel, kernel)
        strides = (self.stride, self.stride)
        x = self.conv(self.features, kernel, strides=strides, use_bias=self.norm is None)(x)
        if self.norm is not None:
            x = self.norm()(x)
        return nn.relu(x)


class Inception(nn.Module):
    """Inception modules at three resolutions, the mean over positions, and a linear classifier.

    A downsampling module leads to the next lower resolution. `bn_axis_name` names the mapped axis
    over which batch norm averages its statistics. If it is None, each device has its own.
    """

    num_classes: int
    batch_norm: bool = True
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
        layers.check_size(x, 4, "Small Inception")
        norm = partial(BatchNorm, use_running_average=not train, axis_name=self.bn_axis_name)
        conv = partial(layers.Conv, dtype=self.dtype)
        block = partial(ConvBlock, conv=conv, norm=norm if self.batch_norm else None)

        def inception(x, features_1x1, features_3x3):
            return jnp.concatenate([block(features_1x1, 1)(x), block(features_3x3, 3)(x)], axis=-1)

        def downsample(x, features):
            return jnp.concatenate([block(features, 3, stride=2)(x), max_pool(x)], axis=-1)

        x = block(96, 3)(x)
        for features in ((32, 32), (32, 48)):
            x = inception(x, *features)
        x = downsample(x, 80)
        for features in ((112, 48), (96, 64), (80, 80), (48, 96)):
            x = inception(x, *features)
        x = downsample(x, 96)
        for features in ((176, 160), (176, 160)):
            x = inception(x, *features)
        return layers.Classifier(self.num_classes)(x.mean(axis=(1, 2), dtype=jnp.float32))
