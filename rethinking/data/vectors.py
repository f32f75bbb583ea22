"""What a network sees of vectors: numbers of one scale."""

import numpy as np
from jaxtyping import Float32


def standardize(
    train: Float32[np.ndarray, "n d"], *others: Float32[np.ndarray, "_ d"]
) -> list[Float32[np.ndarray, "_ d"]]:
    """All arrays, with each feature minus its mean, divided by its standard deviation, in `train`.

    These are scikit-learn's StandardScaler's values. A feature that is constant in `train` is only
    centered.
    """
    mean, deviation = train.mean(0, np.float64), train.std(0, np.float64)
    # Rounding makes the deviation of a constant feature a little more than zero.
    deviation[train.max(0) == train.min(0)] = 1
    return [((x - mean) / deviation).astype(np.float32) for x in (train, *others)]
