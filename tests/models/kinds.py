"""The same networks in Flax Linen, in Flax NNX and as pure functions, with the same values.

Configs name them as tests.models.kinds:NAME.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx


def drawn(key, shape, dtype=jnp.float32):
    """Initial values that depend on the shape alone."""
    values = np.random.default_rng(shape).normal(scale=shape[0] ** -0.5, size=shape)
    return jnp.asarray(values, dtype)


class LinenNet(nn.Module):
    num_classes: int
    width: int = 20

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.width, kernel_init=drawn)(x.reshape(len(x), -1))
        return nn.Dense(self.num_classes, kernel_init=drawn)(nn.relu(x))


class NnxNet(nnx.Module):
    def __init__(self, num_classes, example_shape, width=20, *, rngs):
        sizes = (math.prod(example_shape), width, num_classes)
        self.layers = nnx.List(
            nnx.Linear(a, b, kernel_init=drawn, rngs=rngs) for a, b in itertools.pairwise(sizes)
        )

    def __call__(self, x):
        x = self.layers[0](x.reshape(len(x), -1))
        return self.layers[1](nnx.relu(x))


class PureNet:
    def __init__(self, num_classes, width=20):
        self.num_classes, self.width = num_classes, width

    def init(self, key, x):
        sizes = (math.prod(x.shape[1:]), self.width, self.num_classes)
        layers = []
        for a, b in itertools.pairwise(sizes):
            layers.append({"kernel": drawn(key, (a, b)), "bias": jnp.zeros(b)})
        return {"params": layers}

    def apply(self, variables, x, train, key):
        hidden, output = variables["params"]
        x = jnp.dot(x.reshape(len(x), -1), hidden["kernel"]) + hidden["bias"][None]
        return jnp.dot(jax.nn.relu(x), output["kernel"]) + output["bias"][None], {}


class LinenNormalized(nn.Module):
    num_classes: int
    bn_axis_name: str | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(8, kernel_init=drawn)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.bn_axis_name)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, kernel_init=drawn)(x)


class NnxNormalized(nnx.Module):
    def __init__(self, num_classes, example_shape, bn_axis_name=None, dropout=0.0, *, rngs):
        size = math.prod(example_shape)
        self.hidden = nnx.Linear(size, 8, kernel_init=drawn, rngs=rngs)
        self.norm = nnx.BatchNorm(8, axis_name=bn_axis_name, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.output = nnx.Linear(8, num_classes, kernel_init=drawn, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.hidden(x.reshape(len(x), -1)))
        return self.output(self.dropout(nnx.relu(x)))
