"""Networks as users may write them; runs name them as tests.experiments.networks:NAME."""

import flax.linen as nn
import jax


class OwnNetwork(nn.Module):
    """A network with Flax's own dropout and batch norm, for images of 28 x 28."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(len(x), 7, 4, 7, 4).mean((2, 4)).reshape(len(x), -1)
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(32)(x))
        return nn.Dense(self.num_classes)(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))


class Convolutional(nn.Module):
    """A small network with a convolution, dropout and batch norm."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3), strides=4)(x)))
        x = nn.Dropout(0.1, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(self.num_classes)(x)


class Changing(nn.Module):
    """A network whose code changes between two calls of a command.

    Its kernels are boxed with names for sharding, and it sows a value in every step.
    """

    num_classes: int
    width = 20

    @nn.compact
    def __call__(self, x, train):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None))
        x = nn.Dense(self.width, kernel_init=init)(x.reshape(len(x), -1))
        self.sow("losses", "activity", (x**2).mean())
        return nn.Dense(self.num_classes, kernel_init=init)(x)


class FiveClasses(nn.Module):
    """A network that ignores the number of classes."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(5)(x.reshape(len(x), -1))


class NoKeys(nn.Module):
    """A network that needs random numbers in training that nobody gives it."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if train else 0
        return nn.Dense(self.num_classes)((x + noise).reshape(len(x), -1))
