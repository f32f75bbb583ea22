"""Sets of vectors and of tokens for the tests, and a network for tokens."""

import flax.linen as nn
import numpy as np
from sklearn import datasets

from rethinking.data import arrays
from rethinking.data.source import Dataset, Info

LENGTH, TOPICS = 12, 20
TOKENS = f"{__name__}:TokensInPlace"


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
    x, labels = datasets.load_wine(return_X_y=True)
    return x.astype(np.float32), labels, 120


def sentences():
    """Sequences of tokens in 20 classes, which have the same tokens in other places.

    Half of the tokens are drawn at random instead.
    """
    rng = np.random.default_rng(1)
    labels = rng.integers(0, TOPICS, 1200)
    orders = np.stack([rng.permutation(LENGTH) for _ in range(TOPICS)])
    noise = rng.integers(0, LENGTH, (len(labels), LENGTH))
    tokens = np.where(rng.random(noise.shape) < 0.5, orders[labels], noise)
    return tokens.astype(np.int32), labels, 800


SETS = {"wine": wine, "sentences": sentences}


def whole(name):
    """The examples of a set in a random order, their labels, and its description."""
    examples, labels, num_train = SETS[name]()
    order = np.random.default_rng(5).permutation(len(labels))
    info = Info(
        num_train=num_train,
        num_test=len(labels) - num_train,
        example_shape=examples.shape[1:],
        num_classes=int(labels.max()) + 1,
        example_dtype=str(examples.dtype),
    )
    return examples[order], labels[order].astype(np.int32), info


def describe(name, *args, **kwargs):
    """In place of `arrays.describe`."""
    return whole(name)[2]


def load(name, data_dir=None, num_train=0, seed=0, num_test=0, **kwargs):
    """In place of `arrays.load`. A subset consists of the first examples."""
    examples, labels, info = whole(name)
    cut = info.num_train
    train = slice(0, num_train or cut)
    test = slice(cut, cut + (num_test or info.num_test))
    splits = [
        arrays.Split(examples[s], labels[s], np.arange(len(labels[s]))) for s in (train, test)
    ]
    return Dataset(name, *splits, info.num_classes)


def use(monkeypatch):
    """Makes the sets known by their names."""
    monkeypatch.setattr(arrays, "describe", describe)
    monkeypatch.setattr(arrays, "load", load)
