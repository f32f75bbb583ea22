"""Examples that repeat others: no function interpolates them if their labels differ."""

import hashlib

import numpy as np
from jaxtyping import Int64


def first_occurrences(x: np.ndarray) -> Int64[np.ndarray, " n"]:
    """For each example the index of the first one equal to it in every value: its own, unless it repeats another."""
    first: dict[bytes, int] = {}
    zero = x.dtype.type(0)  # makes -0.0 of it 0.0
    digests = (hashlib.blake2b((row + zero).tobytes()).digest() for row in x)
    return np.fromiter(
        (first.setdefault(digest, i) for i, digest in enumerate(digests)), np.int64, len(x)
    )
