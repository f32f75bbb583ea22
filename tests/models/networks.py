"""Networks with drawn variables, and what a pass in training makes of them.

NumPy draws the variables, because that takes less time than to compile `init`. None of them are
zero, since a zero could hide a mistake.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rethinking import models
from rethinking.models.inception_v3 import InceptionV3


@functools.cache
def shapes(model, *size, train=True):
    """Shapes and dtypes of a model's variables for images of `size`, without computing them."""
    images = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    init = functools.partial(model.init, train=train)
    return jax.eval_shape(init, jax.random.key(0), images)


def images(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def drawn(shapes):
    """Variables of these shapes. Kernels have He et al.'s variance, scales are near 1."""
    noise = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            values = noise.normal(scale=(2 * leaf.shape[-1] / leaf.size) ** 0.5, size=leaf.shape)
        else:
            values = 0.1 * noise.uniform(size=leaf.shape)
        if name in ("scale", "var"):
            values = 1 + values
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


# The sizes are 14, 7 and 4, so that even and odd sizes are halved. The brightness differs, so that
# parts of the batch have other statistics.
X = images(16, 14, 14, 3) + jnp.repeat(jnp.arange(8.0), 2)[:, None, None, None]


def x_of(name):
    """X, without its edges if the network needs sides that are multiples of four.

    The Residual Network computes much, so it sees every second pixel of a quarter of the images.
    """
    if name == "resnet_18":
        return X[::4, ::2, ::2]
    return X[:, 1:-1, 1:-1] if name == "vit_patch4" else X


@functools.cache
def variables_of(name):
    return drawn(shapes(models.create(name, 10), *x_of(name).shape[1:]))


@functools.cache
def trained(name, dtype=jnp.float32):
    """Logits and new batch statistics of one pass over `x_of(name)` in training."""
    model = models.create(name, 10, dtype)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    return apply(variables_of(name), x_of(name))


NARROW_V3 = InceptionV3(num_classes=5, width=0.1, aux_head=True, dropout=0.2)
# Neither square nor small: the grids are 17x15, 8x7 and 3x3, and the auxiliary head's last kernel
# is 2x1.
X_V3 = np.random.default_rng(3).normal(size=(6, 155, 139, 3)).astype(np.float32)


@functools.cache
def trained_v3():
    """Variables of NARROW_V3, and what a pass over X_V3 in training returns for each of two keys.

    That is (outputs, updated collections). The output of dropout is among the intermediates.
    """
    variables = drawn(shapes(NARROW_V3, *X_V3.shape[1:], train=False))
    apply = jax.jit(
        functools.partial(
            NARROW_V3.apply,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )
    )
    passes = [apply(variables, X_V3, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1)]
    return variables, passes
