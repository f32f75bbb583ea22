"""A small Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rethinking.errors import InputError, require
from rethinking.models import layers

EPSILON = 1e-6  # of the layer norms, as in the authors' code


def _normalize(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """A layer norm, computed in float32; the result has the dtype of x."""
    return nn.LayerNorm(EPSILON, dtype=jnp.float32)(x.astype(jnp.float32)).astype(x.dtype)


class Block(nn.Module):
    """Attention, then a perceptron with one hidden layer of four times the width.

    A layer norm stands before each of them, and its input is added after it. The queries, keys and
    values come from one dense layer, so its biases have one dimension.
    """

    num_heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Returns new features of each token."""
        batch, tokens, width = x.shape
        y = _normalize(x)
        y = layers.Dense(3 * width, dtype=self.dtype)(y)
        y = y.reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        y = nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2], dtype=self.dtype)
        x = x + layers.Dense(width, dtype=self.dtype)(y.reshape(x.shape))
        y = _normalize(x)
        y = nn.gelu(layers.Dense(4 * width, dtype=self.dtype)(y), approximate=False)
        return x + layers.Dense(width, dtype=self.dtype)(y)


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels as tokens, learned positions, and `depth` blocks with norms in front.

    Width 192 and 3 heads are those of DeiT-Ti (Touvron et al. 2021, arXiv 2012.12877, Table 1). It
    has 12 blocks for 196 patches. Here are 6, because a CIFAR10 image has only 64 patches. The
    design is the authors': a class token, whose features after a last layer norm are classified.
    There is no dropout.

    It has these parameters, for n patches of p numbers, width w, depth d and k classes:

        p w + w                  the embedding of patches
        (n + 2) w                the positions and the class token
        d (12 w^2 + 13 w)        the blocks
        2 w + w k + k            the last layer norm and the logits
    """

    num_classes: int
    patch: int = 4
    width: int = 192
    depth: int = 6
    num_heads: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Returns the logits of a batch of images, in float32, the same in training and evaluation.

        Raises InputError for images whose sides are not multiples of the patch, and for a width
        that the heads cannot share.
        """
        self._check(x)
        patches = (self.patch, self.patch)
        x = layers.Conv(self.width, patches, patches, padding="VALID", dtype=self.dtype)(x)
        x = x.reshape(len(x), -1, self.width)
        init = nn.initializers.truncated_normal(0.02)
        first = self.param("class_token", nn.initializers.zeros, (self.width,))
        positions = self.param("positions", init, (x.shape[1] + 1, self.width))
        first = jnp.broadcast_to(first.astype(self.dtype), (len(x), 1, self.width))
        x = jnp.concatenate([first, x], axis=1) + positions.astype(self.dtype)[None]
        for _ in range(self.depth):
            x = Block(self.num_heads, self.dtype)(x)
        features = _normalize(x[:, 0]).astype(jnp.float32)
        return layers.Classifier(self.num_classes)(features)

    def _check(self, x: Float[Array, "batch height width channels"]) -> None:
        layers.check_images(x, "The Vision Transformer")
        height, width = x.shape[1:3]
        if height % self.patch or width % self.patch or 0 in (height, width):
            raise InputError(
                f"The Vision Transformer cuts images into patches of {self.patch}x{self.patch} "
                f"pixels; these are {height}x{width}. Choose config.data.crop_size or the option "
                "patch so that the sides are multiples of the patch."
            )
        require(
            self.width % self.num_heads == 0,
            f"The Vision Transformer cannot split a width of {self.width} among {self.num_heads} "
            "heads. Choose a width that is a multiple of num_heads.",
        )
