"""The streams of random numbers: one for each seed, purpose, split and index."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from rethinking.errors import require, require_known
from rethinking.randomize.arguments import is_whole

# These numbers are part of the streams. Changing one changes all results of that purpose.
_PURPOSES = {"labels": 0, "shuffled": 1, "random": 2, "gaussian": 3}
_SPLITS = {"train": 0, "test": 1}


def generator_of(seed: int, purpose: str, split: str = "train") -> np.random.Generator:
    """The generator of draws that do not depend on an example.

    Raises InputError for a seed that is not a whole number from 0 on, and for an unknown split.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, split)))


def generators_of(
    seed: int, purpose: str, split: str, indices: Integer[np.ndarray, " n"]
) -> Iterator[np.random.Generator]:
    """Yields a generator for each index, which is valid until the next one. See `generator_of`.

    The index is the second word of Philox's counter, so the streams of two indices are at least
    2^66 draws apart. Moving one Philox is much faster than making one for each index.
    """
    bits = np.random.Philox(key=_key(seed, purpose, split))
    generator = np.random.Generator(bits)
    state = bits.state
    for index in indices:
        state["state"]["counter"][:] = (0, index, 0, 0)
        bits.state = state
        yield generator


def _key(seed: int, purpose: str, split: str) -> np.ndarray:
    require(
        is_whole(seed) and seed >= 0,
        f"seed={seed!r} is negative or not a whole number. Choose 0, 1, 2 or so on.",
    )
    require_known(split, _SPLITS, "Unknown split")
    sequence = np.random.SeedSequence([int(seed), _PURPOSES[purpose], _SPLITS[split]])
    return sequence.generate_state(2, np.uint64)
