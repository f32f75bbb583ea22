"""ResNet-18 for small images (He et al. 2015, arXiv 1512.03385)."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers
from rethinking.models.batch_norm import BatchNorm

# He et al. train with the initialization of their earlier paper (arXiv 1502.01852).
kernel_init = nn.initializers.he_normal()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; the input is added before the last ReLU.

    Where the shape changes, the input goes through a 1x1 convolution with batch norm first.
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
        y = nn.relu(self.norm()(self.conv(self.features, (3, 3), strides)(x)))
        y = self.norm()(self.conv(self.features, (3, 3))(y))
        if x.shape != y.shape:
            x = self.norm()(self.conv(self.features, (1, 1), strides, padding=0)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Four stages of basic blocks, with 1, 2, 4 and 8 times `width` channels.

    This is the usual variant for CIFAR10: ResNet-18 of the paper's Table 1, but the first layer is
    a 3x3 convolution with stride 1, and no max-pooling follows it. With 10 classes and 3 channels
    it has 11,173,962 parameters. Batch norm has PyTorch's momentum and epsilon.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
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
        layers.check_size(x, 4, "ResNet")
        # Padding by one pixel on each side. SAME would pad even images on one side alone.
        conv = partial(
            layers.Conv, use_bias=False, padding=1, kernel_init=kernel_init, dtype=self.dtype
        )
        norm = partial(
            BatchNorm,
            use_scale=True,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.bn_axis_name,
        )
        x = nn.relu(norm()(conv(self.width, (3, 3))(x)))
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                x = BasicBlock(self.width * 2**stage, conv, norm, stride)(x)
        return layers.Classifier(self.num_classes)(x.mean(axis=(1, 2), dtype=jnp.float32))
