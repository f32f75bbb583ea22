"""The network that launch.doctor trains."""

from flax import linen as nn


class Network(nn.Module):
    """A small network with the layers that the paper's networks have."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
