"""Multilayer perceptrons: MLP 1x512 and MLP 3x512 of appendix A."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from rethinking.errors import InputError
from rethinking.models import layers


class MLP(nn.Module):
    """`depth` hidden layers of `width` units with ReLU, then a linear classifier (appendix A)."""

    num_classes: int
    depth: int = 1
    width: int = 512
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Num[Array, "batch *example"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Returns the logits of a batch of images or vectors, in float32.

        These may have any size. The logits are the same in training and in evaluation. Raises
        InputError for tokens.
        """
        if jnp.issubdtype(x.dtype, jnp.integer):
            raise InputError(
                "An MLP takes images or vectors of floating-point numbers, but these are tokens of "
                f"{x.dtype}. A token is a name and not a size. Use a network of your own that "
                "begins with an embedding, such as flax.linen.Embed."
            )
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = nn.relu(layers.Dense(self.width, dtype=self.dtype)(x))
        return layers.Classifier(self.num_classes)(x)
