"""Sets of vectors and of tokens for the tests, as users may write them, and a network for tokens.

Runs name them as tests.experiments.kinds:NAME.
"""

import flax.linen as nn
import numpy as np
from sklearn import datasets

LENGTH, TOPICS = 12, 20
WINE, SENTENCES, TOKENS = (f"{__name__}:{name}" for name in ("wine", "sentences", "TokensInPlace"))


class TokensInPlace(nn.Module):
    """A network with an embedding for each token in each place."""

    num_classes: int
    vocab_size: int

    @nn.compact
    def __call__(self, x, train):
        places = self.vocab_size * np.arange(x.shape[1], dtype=np.int32)[None]
        x = nn.Embed(self.vocab_size * x.shape[1], 16)(x + places).reshape(len(x), -1)
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(128)(x)))


def wine():
    """scikit-learn's table of 178 wines: 13 numbers of very different sizes, 3 classes."""
    x, y = datasets.load_wine(return_X_y=True)
    order = np.random.default_rng(5).permutation(len(y))
    train, test = order[:120], order[120:]
    return (x[train], y[train]), (x[test], y[test])


def sentences():
    """Sequences of tokens in 20 classes, which have the same tokens in other places.

    Half of the tokens are drawn at random instead.
    """
    rng = np.random.default_rng(1)
    labels = rng.integers(0, TOPICS, 1200)
    orders = np.stack([rng.permutation(LENGTH) for _ in range(TOPICS)])
    noise = rng.integers(0, LENGTH, (len(labels), LENGTH))
    tokens = np.where(rng.random(noise.shape) < 0.5, orders[labels], noise)
    return (tokens[:800], labels[:800]), (tokens[800:], labels[800:])
