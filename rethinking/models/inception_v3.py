"""Inception V3 as TensorFlow slim builds it: the ImageNet network of Table 2.

Szegedy et al. (2015), arXiv 1512.00567. Blocks have slim's names (`Mixed_5b` to `Mixed_7c`). Within
a block, convolutions are numbered in the order in which they are written here, branch by branch.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers, pooling
from rethinking.models.batch_norm import BatchNorm
from rethinking.models.inception import ConvBlock

# Smaller images leave no pixel for the last stage: 75 -> 37 -> 35 -> 17 -> 15 -> 7 -> 3 -> 1.
MIN_SIZE = 75
# slim's `min_depth`: the least number of features of a convolution, whatever the width multiplier.
MIN_FEATURES = 16
# The constants of TensorFlow's `inception` package (inception_model.py, slim/inception_model.py,
# slim/ops.py). Table 2 uses its learning rate, optimizer and averages too. The later
# slim/nets/inception_v3.py has He et al.'s variance instead of CONV_STDDEV. Before a batch norm,
# that changes only how fast a kernel's direction changes at a given learning rate.
BATCH_NORM_MOMENTUM = 0.9997
CONV_STDDEV = 0.1
LOGITS_STDDEV = 0.01
AUX_CONV_STDDEV = 0.01
AUX_LOGITS_STDDEV = 0.001

Images = Float[Array, "batch height width channels"]
Layer = Callable[[Images], Float[Array, "batch _ _ _"]]

max_pool = partial(pooling.max_pool, padding="VALID")


def mean_pool(
    x: Images, window: tuple[int, int] = (3, 3), stride: int = 1, padding: str = "SAME"
) -> Float[Array, "batch _ _ channels"]:
    """The mean over each window, of the pixels that lie within the image.

    TensorFlow computes it so. Flax by default counts the padding too. The mean is computed in
    float32. The result has the dtype of x.
    """
    pool = partial(nn.avg_pool, strides=(stride, stride), padding=padding, count_include_pad=False)
    return pool(x.astype(jnp.float32), window).astype(x.dtype)


def chain(*layers: Layer) -> Layer:
    """A layer that applies these layers one after the other."""

    def chained(x: Images) -> Float[Array, "batch _ _ _"]:
        for layer in layers:
            x = layer(x)
        return x

    return chained


def fork(*branches: Layer) -> Layer:
    """A layer that applies all branches to the same input and concatenates their channels."""

    def forked(x: Images) -> Float[Array, "batch _ _ _"]:
        return jnp.concatenate([branch(x) for branch in branches], axis=-1)

    return forked


# The five kinds of block. `conv(features, kernel)` keeps height and width. `down(features)` has a
# 3x3 kernel, stride 2 and no padding. max_pool has them too.


def mixed_5(conv: Callable, down: Callable, pooled: int) -> Layer:
    """The blocks of the 35x35 grid: branches with a 1x1, a 5x5, and two 3x3 convolutions."""
    return fork(
        conv(64, 1),
        chain(conv(48, 1), conv(64, 5)),
        chain(conv(64, 1), conv(96, 3), conv(96, 3)),
        chain(mean_pool, conv(pooled, 1)),
    )


def mixed_6a(conv: Callable, down: Callable) -> Layer:
    """The block that reduces the grid from 35x35 to 17x17."""
    return fork(down(384), chain(conv(64, 1), conv(96, 3), down(96)), max_pool)


def mixed_6(conv: Callable, down: Callable, features: int) -> Layer:
    """The blocks of the 17x17 grid: 7x7 convolutions are factored into 1x7 and 7x1."""
    row, column = (1, 7), (7, 1)
    return fork(
        conv(192, 1),
        chain(conv(features, 1), conv(features, row), conv(192, column)),
        chain(
            conv(features, 1),
            conv(features, column),
            conv(features, row),
            conv(features, column),
            conv(192, row),
        ),
        chain(mean_pool, conv(192, 1)),
    )


def mixed_7a(conv: Callable, down: Callable) -> Layer:
    """The block that reduces the grid from 17x17 to 8x8."""
    return fork(
        chain(conv(192, 1), down(320)),
        chain(conv(192, 1), conv(192, (1, 7)), conv(192, (7, 1)), down(192)),
        max_pool,
    )


def mixed_7(conv: Callable, down: Callable) -> Layer:
    """The blocks of the 8x8 grid: 3x3 convolutions are replaced by a 1x3 and a 3x1 side by side."""
    return fork(
        conv(320, 1),
        chain(conv(384, 1), fork(conv(384, (1, 3)), conv(384, (3, 1)))),
        chain(conv(448, 1), conv(384, 3), fork(conv(384, (1, 3)), conv(384, (3, 1)))),
        chain(mean_pool, conv(192, 1)),
    )


BLOCKS = {
    "Mixed_5b": partial(mixed_5, pooled=32),
    "Mixed_5c": partial(mixed_5, pooled=64),
    "Mixed_5d": partial(mixed_5, pooled=64),
    "Mixed_6a": mixed_6a,
    "Mixed_6b": partial(mixed_6, features=128),
    "Mixed_6c": partial(mixed_6, features=160),
    "Mixed_6d": partial(mixed_6, features=160),
    "Mixed_6e": partial(mixed_6, features=192),
    "Mixed_7a": mixed_7a,
    "Mixed_7b": mixed_7,
    "Mixed_7c": mixed_7,
}


class Block(nn.Module):
    """One of `BLOCKS`. Its convolutions have a scope of their own."""

    build: Callable[..., Layer]
    conv: Callable[..., nn.Module]
    down: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch _ _ _"]:
        return self.build(self.conv, self.down)(x)


class AuxHead(nn.Module):
    """The auxiliary classifier on the 17x17 grid.

    It takes means over 5x5 pixels with stride 3. Then come a 1x1 convolution, a convolution over
    the whole remaining grid (5x5 for images of 299x299), and the logits.
    """

    num_classes: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch {self.num_classes}"]:
        """Returns the logits, in float32. On a grid smaller than 5x5 the mean is over all of it."""
        window = tuple(min(5, size) for size in x.shape[1:3])
        x = mean_pool(x, window, stride=3, padding="VALID")
        x = self.conv(128, 1)(x)
        x = self.conv(768, x.shape[1:3], padding="VALID", stddev=AUX_CONV_STDDEV)(x)
        x = x.reshape(len(x), -1)
        return layers.Classifier(self.num_classes, kernel_init=_init(AUX_LOGITS_STDDEV))(x)


class InceptionV3(nn.Module):
    """Inception V3, made for images of 299x299 pixels. It accepts images from 75x75 up.

    With 1000 classes it has 23,834,568 parameters, and 27,161,264 with the auxiliary head. slim's
    own batch norms have no scale (`bn_scale=False`): 17,216 and 18,112 parameters fewer.

    Attributes:
        num_classes: the number of logits.
        width: multiplies the number of features of every convolution, which is at least 16.
        aux_head: whether there is an auxiliary head.
        dropout: the probability that a feature is dropped before the logits. TensorFlow's recipe
            has 0.2. It draws from the random stream "dropout".
        bn_scale: whether batch norms have a scale.
        bn_momentum: the decay of the moving statistics. The default averages over thousands of
            steps. A short run needs a smaller one.
        dtype: of the computation. Parameters and logits are float32.
        bn_axis_name: the mapped axis over which batch norm averages its statistics. If it is None,
            each device has its own.
    """

    num_classes: int
    width: float = 1.0
    aux_head: bool = False
    dropout: float = 0.0
    bn_scale: bool = True
    bn_momentum: float = BATCH_NORM_MOMENTUM
    dtype: DTypeLike = jnp.float32
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> (
        Float[Array, "batch {self.num_classes}"]
        | tuple[Float[Array, "batch {self.num_classes}"], Float[Array, "batch {self.num_classes}"]]
    ):
        """Returns the logits of a batch of images, in float32.

        With `aux_head`, in training, it returns (logits, logits of the auxiliary head). In
        training, batch norm uses the statistics of the batch and updates `batch_stats`. Raises
        InputError for images smaller than 75x75.
        """
        layers.check_size(x, MIN_SIZE, "Inception V3")
        norm = partial(
            BatchNorm,
            use_scale=self.bn_scale,
            momentum=self.bn_momentum,
            use_running_average=not train,
            axis_name=self.bn_axis_name,
        )

        def conv(features, kernel, stride=1, padding="SAME", stddev=CONV_STDDEV):
            features = max(int(features * self.width), MIN_FEATURES)
            convolution = partial(
                layers.Conv, padding=padding, kernel_init=_init(stddev), dtype=self.dtype
            )
            return ConvBlock(features, kernel, convolution, norm, stride)

        valid = partial(conv, padding="VALID")
        down = partial(valid, kernel=3, stride=2)

        x = chain(
            down(32), valid(32, 3), conv(64, 3), max_pool, conv(80, 1), valid(192, 3), max_pool
        )(x)
        aux_logits = None
        for name, build in BLOCKS.items():
            x = Block(build, conv, down, name=name)(x)
            is_used = train or self.is_initializing()
            if name == "Mixed_6e" and self.aux_head and is_used:
                aux_logits = AuxHead(self.num_classes, conv, name="AuxHead")(x)
        x = x.mean(axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = layers.Classifier(
            self.num_classes, kernel_init=_init(LOGITS_STDDEV), name="Logits"
        )(x)
        return (logits, aux_logits) if self.aux_head and train else logits


def _init(stddev: float) -> nn.initializers.Initializer:
    """TensorFlow's `truncated_normal_initializer`.

    It redraws values beyond two standard deviations, and does not rescale the others for it.
    """
    return nn.initializers.truncated_normal(stddev)
