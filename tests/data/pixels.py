"""Batches of pixels, keys for them, and what is drawn with these keys."""

import jax
import jax.numpy as jnp
import numpy as np


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def noise(n=4, h=9, w=8, c=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8))


def drawn(n, middle, spread, seed=0):
    """The numbers that one operation draws for each of `keys(n)`."""
    low, high = middle - spread, middle + spread
    return np.array([jax.random.uniform(key, (), jnp.float32, low, high) for key in keys(n, seed)])


# The formulas treat greys, black, white and the corners of the colour circle in cases of their own.
SPECIAL = [
    (0, 0, 0),
    (1, 1, 1),
    (0.5, 0.5, 0.5),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (1, 1, 0),
    (0, 1, 1),
    (1, 0, 1),
]


def colours(n):
    pixels = np.random.default_rng(0).random((n, 7, 7, 3), np.float32)
    pixels[:, 0] = np.array(SPECIAL[:7])
    pixels[:, 1, :2] = np.array(SPECIAL[7:])
    return pixels
