"""Inception V3 (Szegedy et al. 2015, arXiv 1512.00567), the ImageNet network of Table 2, as TensorFlow slim builds it.

Blocks are named as slim names them (`Mixed_5b` to `Mixed_7c`); within one, convolutions are numbered in the order in
which they are written here, branch by branch.
"""

from collections.abc import Callable
from functools import partial, reduce

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.models import layers, pooling
from rethinking.models.batch_norm import BatchNorm
from rethinking.models.inception import ConvBlock

# Smaller images leave nothing for the last stage: 75 -> 37 -> 35 -> 17 -> 15 -> 7 -> 3 -> 1.
MIN_SIZE = 75
# slim's `min_depth`: no convolution gets narrower, whatever the width multiplier.
MIN_FEATURES = 16
# The constants of TensorFlow's `inception` package (inception_model.py, slim/inception_model.py, slim/ops.py), whose
# learning rate, optimizer and averages Table 2 is trained with. The later slim/nets/inception_v3.py has He et al.'s
# variance instead of CONV_STDDEV; before a batch norm that changes only how fast a kernel turns at a learning rate.
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
    """The mean over each window of the pixels that lie within the image, as in TensorFlow; Flax counts the padding too.

    Computed in float32; the result has the dtype of x.
    """
    pool = partial(nn.avg_pool, strides=(stride, stride), padding=padding, count_include_pad=False)
    return pool(x.astype(jnp.float32), window).astype(x.dtype)


def chain(*layers: Layer) -> Layer:
    """One layer after the other."""
    return lambda x: reduce(lambda y, layer: layer(y), layers, x)


def fork(*branches: Layer) -> Layer:
    """Layers side by side, their channels concatenated."""
    return lambda x: jnp.concatenate([branch(x) for branch in branches], axis=-1)


# The five kinds of block. `conv(features, kernel)` keeps height and width; `down(features)` is 3x3 with stride 2 and no
# padding, and so is max_pool.


def mixed_5(conv: Callable, down: Callable, pooled: int) -> Layer:
    """35x35: a 1x1, a 5x5, two 3x3."""
    return fork(
        conv(64, 1),
        chain(conv(48, 1), conv(64, 5)),
        chain(conv(64, 1), conv(96, 3), conv(96, 3)),
        chain(mean_pool, conv(pooled, 1)),
    )


def mixed_6a(conv: Callable, down: Callable) -> Layer:
    """35x35 -> 17x17."""
    return fork(down(384), chain(conv(64, 1), conv(96, 3), down(96)), max_pool)


def mixed_6(conv: Callable, down: Callable, features: int) -> Layer:
    """17x17: 7x7 convolutions factored into 1x7 and 7x1."""
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
    """17x17 -> 8x8."""
    return fork(
        chain(conv(192, 1), down(320)),
        chain(conv(192, 1), conv(192, (1, 7)), conv(192, (7, 1)), down(192)),
        max_pool,
    )


def mixed_7(conv: Callable, down: Callable) -> Layer:
    """8x8: 3x3 convolutions spread into a 1x3 and a 3x1 side by side."""
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
    """One of `BLOCKS`, with its convolutions in a scope of their own."""

    build: Callable[..., Layer]
    conv: Callable[..., nn.Module]
    down: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch _ _ _"]:
        return self.build(self.conv, self.down)(x)


class AuxHead(nn.Module):
    """Auxiliary classifier on the 17x17 grid: mean over 5x5 with stride 3, 1x1, one convolution over all that is left
    (5x5 for images of 299x299), logits.
    """

    num_classes: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch {self.num_classes}"]:
        """Logits, in float32. On grids smaller than 5x5 the mean is over all of it."""
        window = tuple(min(5, size) for size in x.shape[1:3])
        x = mean_pool(x, window, stride=3, padding="VALID")
        x = self.conv(128, 1)(x)
        x = self.conv(768, x.shape[1:3], padding="VALID", stddev=AUX_CONV_STDDEV)(x)
        return layers.Classifier(self.num_classes, kernel_init=_init(AUX_LOGITS_STDDEV))(
            x.reshape(len(x), -1)
        )


class InceptionV3(nn.Module):
    """Inception V3 for images from 75x75 up; 299x299 is what it was made for.

    With 1000 classes and scaled batch norms it has 23,834,568 parameters, 27,161,264 with the auxiliary head (slim's
    own batch norms have no scale, `bn_scale=False`: 17,216 and 18,112 parameters fewer).
    `width` multiplies the number of every convolution's features, of which 16 are the least. `dropout` is the
    probability that a feature is dropped before the logits; TensorFlow's recipe has 0.2. It draws from the random
    stream "dropout". `bn_momentum` is the decay of the moving statistics: the default averages over thousands of
    steps; a short run needs less. `bn_axis_name` names the mapped axis over which batch statistics are averaged;
    None: each device has its own.
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
        """Logits of a batch of images, in float32; with `aux_head`, in training, (logits, the auxiliary head's logits).

        In training, statistics are the batch's, and `batch_stats` change.
        Raises InputError for images smaller than 75x75.
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
            if name == "Mixed_6e" and self.aux_head and (train or self.is_initializing()):
                aux_logits = AuxHead(self.num_classes, conv, name="AuxHead")(x)
        x = x.mean(axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = layers.Classifier(
            self.num_classes, kernel_init=_init(LOGITS_STDDEV), name="Logits"
        )(x)
        return (logits, aux_logits) if self.aux_head and train else logits


def _init(stddev: float) -> nn.initializers.Initializer:
    """TensorFlow's `truncated_normal_initializer`: redrawn beyond two standard deviations, and not rescaled for it."""
    return nn.initializers.truncated_normal(stddev)
