"""The choice of a ridge by the error on held-out training examples."""

import logging

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from rethinking.errors import InputError
from rethinking.kernels import checks, memory, probe
from rethinking.kernels.systems import FeatureSystem, System

_LOG = logging.getLogger(__name__)
# The candidates, in units of the mean of the matrix's diagonal.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# The numbers of examples that are fitted and held out. A smaller training set is divided into two
# thirds and one third.
NUM_FITTED, NUM_HELD_OUT = 8_000, 4_000


def split(n: int) -> tuple[int, int]:
    """How many of n training examples are fitted, and how many others are held out."""
    return min(NUM_FITTED, 2 * n // 3), min(NUM_HELD_OUT, n // 3)


def require_memory(n: int, features: bool) -> None:
    """Raises InputError for too few of n examples to choose a ridge, and for too little memory.

    `features` says that the matrix is a sum of products of features. That takes less memory than a
    kernel, because distances need several arrays.
    """
    if n < 3:
        raise InputError(
            f"choosing the ridge on {n} examples: two are fitted and one is held out. Give at "
            "least 3 examples, or a ridge instead of choosing it."
        )
    rows = sum(split(n))
    # Arrays of the matrix's size at the peak, as measured.
    num_arrays = 2.5 if features else 4.25
    memory.require_on_host(
        f"choosing the ridge on {rows} examples",
        num_arrays * 8 * rows**2,
        "give a ridge instead of choosing it, or fewer examples",
    )


def errors(
    system: System,
    x: np.ndarray,
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    seed: int,
) -> dict[float, float]:
    """The error on held-out training examples for each of RIDGES; `min` of it is the best.

    A ridge for which the matrix is not positive definite is left out.
    Raises InputError if that leaves none, for fewer than 3 examples, and for a matrix that is not
    finite.

    Args:
        system: its kernel or features are used.
        x: all training examples.
        labels: of all training examples, integers from 0.
        num_classes: of the labels.
        seed: of the permutation that selects the examples.
    """
    require_memory(len(x), isinstance(system, FeatureSystem))
    labels = checks.as_labels(labels)
    targets = checks.one_hot(labels, num_classes)
    checks.check_targets(targets, labels, len(x))
    fitted, held_out = split(len(x))
    rows = np.random.default_rng(seed).permutation(len(x))[: fitted + held_out]
    with np.errstate(all="ignore"):
        gram = system.gram(x[rows])
    probe.require_finite(gram)
    ours, theirs = gram[:fitted, :fitted], gram[fitted:, :fitted]
    targets = targets[rows[:fitted]]
    expected = labels[rows[fitted:]]
    found = {}
    for ridge in RIDGES:
        alpha = _solve(ours, ridge * np.trace(ours) / fitted, targets)
        if alpha is None:
            # Products of float32 features are rounded, so a tiny ridge can be too small.
            _LOG.info("Ridge %g: too small, the matrix is not positive definite", ridge)
            continue
        found[ridge] = float(np.mean((theirs @ alpha).argmax(1) != expected))
        _LOG.info("Ridge %g: held-out error %.2f%%", ridge, 100 * found[ridge])
    if not found:
        raise InputError(
            f"the matrix is not positive definite with any ridge up to {max(RIDGES):g}. Choose a "
            "positive definite kernel."
        )
    return found


def _solve(
    matrix: Float[np.ndarray, "n n"], ridge: float, targets: Float[np.ndarray, "n c"]
) -> Float[np.ndarray, "n c"] | None:
    """alpha with (matrix + ridge I) alpha = targets; None if that is not positive definite."""
    penalized = matrix.copy()
    penalized[np.diag_indices(len(matrix))] += ridge
    try:
        factor = scipy.linalg.cho_factor(penalized, overwrite_a=True)
    except scipy.linalg.LinAlgError:
        return None
    return scipy.linalg.cho_solve(factor, targets)
