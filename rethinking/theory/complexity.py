"""Measures of complexity (section 2.2), each a pure function of what was drawn or trained, in NumPy, on the host.

The classes whose empirical Rademacher complexity E_sigma sup_h (1/n) sum_i sigma_i h(x_i) (equation 1) is compared:

- a network's signs, h = sign f in {-1, +1}, f the difference of its two logits. The sup is sought by training on sigma
  as labels, which need not find it: the value is a lower estimate. Fitting every sigma makes it 1, its largest value.
- `kernel_ball`: functions of norm at most B in a kernel's space. |f(x)| <= B sqrt(k(x, x)), so with B = 1 and points
  scaled to k(x, x) = 1 values lie in [-1, 1], as those of h do; it is then at most 1 / sqrt(n) for every kernel.
- `linear_span`: all linear functions scaled to a mean square of at most 1 on the sample, which is that of every h. It
  is 1 for independent examples, n <= d, where linear functions fit any signs, and at most sqrt(d / n) beyond.

Signs are [draws, n], of -1.0 and 1.0.
"""

import math

import numpy as np
import scipy.linalg
import scipy.stats
from jaxtyping import Bool, Float, Int

ROWS_AT_ONCE = 1000  # of features, in float64


def interval(
    suprema: Float[np.ndarray, " draws"], num_points: int, confidence: float = 0.95
) -> tuple[float, float]:
    """A two-sided confidence interval for E_sigma sup_h of a class with values in [-1, 1], from independent draws.

    By McDiarmid's bounded differences: one of the m n signs of m draws moves the mean of the suprema by 2 / (m n) at
    most, so that it is t off with probability 2 exp(-m n t^2 / 2) at most. (Student's t would be of width zero where
    all draws are fitted.) Where training found less than the sup, the lower end still holds; the upper end need not.
    """
    t = math.sqrt(2 * math.log(2 / (1 - confidence)) / (len(suprema) * num_points))
    mean = float(np.mean(suprema))
    return max(mean - t, -1.0), min(mean + t, 1.0)


def vc_at_least(num_points: int, draws: int, num_fitted: int, confidence: float = 0.95) -> int:
    """A lower bound, with this confidence, on the VC dimension of a class that fitted random signs of n points.

    All 2^n signs fitted would mean a dimension of n at least; a few draws cannot show that (Theorem 1 does: a network
    can be built for any of them). They do show that a class fits most signs: a fraction p of them or more, with p from
    Clopper and Pearson. By Sauer's lemma a class of VC dimension v fits at most sum_{i<=v} C(n, i) of the 2^n, so v is
    at least the p-quantile of Binomial(n, 1/2): about n / 2 if each of a handful of draws was fitted.
    """
    if num_fitted == 0:
        return 0
    p = scipy.stats.beta.ppf(1 - confidence, num_fitted, draws - num_fitted + 1)
    return int(scipy.stats.binom.ppf(p, num_points, 0.5))


def kernel_ball(
    gram: Float[np.ndarray, "n n"], radius: float, signs: Float[np.ndarray, "draws n"]
) -> float:
    """The Rademacher complexity of {f: ||f||_H <= radius}, (B/n) E ||sum_i sigma_i phi(x_i)||, over these draws.

    The sup for one sigma is exact, (B/n) sqrt(sigma^T K sigma). A linear model's ball has K = X X^T.
    """
    squares = np.einsum("mi,mi->m", signs @ gram, signs)
    return float(radius / gram.shape[0] * np.sqrt(np.maximum(squares, 0)).mean())


def kernel_ball_bound(diagonal: Float[np.ndarray, " n"], radius: float) -> float:
    """The bound (B/n) sqrt(trace K) on `kernel_ball`'s expectation, by Jensen's inequality, from the k(x_i, x_i)."""
    return float(radius / len(diagonal) * math.sqrt(diagonal.sum(dtype=np.float64)))


def linear_ball(
    features: Float[np.ndarray, "n d"], radius: float, signs: Float[np.ndarray, "draws n"]
) -> float:
    """`kernel_ball` of {x -> <w, x>: ||w|| <= radius}, without the Gram matrix: (B/n) E ||X^T sigma||."""
    sums = signs.astype(features.dtype) @ features
    return float(radius / len(features) * np.linalg.norm(sums, axis=1).mean())


def linear_span(features: Float[np.ndarray, "n d"], signs: Float[np.ndarray, "draws n"]) -> float:
    """The Rademacher complexity of {x -> <w, x>: (1/n) sum_i <w, x_i>^2 <= 1}: E ||P sigma|| / sqrt(n) over the draws.

    P projects on the span of X's columns, so that the value is at most sqrt(rank X / n).
    """
    n, d = features.shape
    wide = n <= d
    values, vectors = scipy.linalg.eigh(_gram(features if wide else features.T))
    # Rounding of the features moves singular values by eps ||X||_F at most, that of the Gram matrix its eigenvalues.
    rounding = max(np.finfo(features.dtype).eps ** 2, len(values) * np.finfo(np.float64).eps)
    kept = values > rounding * values.sum()
    basis = vectors[:, kept] if wide else vectors[:, kept] / np.sqrt(values[kept])
    parts = signs @ basis if wide else (signs.astype(features.dtype) @ features) @ basis
    return float(np.linalg.norm(parts, axis=1).mean() / math.sqrt(n))


def _gram(rows: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k k"]:
    """`rows` times its transpose, in float64 though `rows` be float32."""
    result = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], ROWS_AT_ONCE):
        part = rows[:, start : start + ROWS_AT_ONCE].astype(np.float64)
        result += part @ part.T
    return result


def losses(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The cross entropy of each example."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def changes(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " n"],
    replaced: Bool[np.ndarray, " n"],
) -> dict[str, float]:
    """How much each example's loss changes when one training example is replaced: |l(A_S, z) - l(A_S', z)|.

    Uniform stability (Bousquet and Elisseeff, 2002) is the sup over z, S and S' of this, whatever the labels. Here it
    is over the given examples: "max_change", "mean_change", and "own_change" over those `replaced`, out or in (0 if
    there are none).
    """
    difference = np.abs(after.astype(np.float64) - before)
    return {
        "max_change": float(difference.max()),
        "mean_change": float(difference.mean()),
        "own_change": float(difference[replaced].max(initial=0.0)),
    }
