"""Measures of complexity (section 2.2), as functions of arrays, in NumPy on the host.

The empirical Rademacher complexity of a class of functions h is
E_sigma sup_h (1/n) sum_i sigma_i h(x_i) (equation 1). Three classes are compared:

- The signs of a network, h = sign f in {-1, +1}, with f the difference of its two logits. Training
  on sigma as labels searches for the sup and may miss it, so the value is a lower estimate. A
  network that fits every sigma has the value 1, which is the largest possible.
- `kernel_ball`: functions whose norm in a kernel's space is at most B. They satisfy
  |f(x)| <= B sqrt(k(x, x)). With B = 1 and points scaled to k(x, x) = 1, their values lie in
  [-1, 1], like those of h. The complexity is then at most 1 / sqrt(n), for every kernel.
- `linear_span`: all linear functions with a mean square of at most 1 on the sample. Every h has
  mean square 1. The complexity is 1 for n <= d independent examples, because linear functions fit
  any signs there. For n > d it is at most sqrt(d / n).

Signs are arrays [draws, n] of -1.0 and 1.0.
"""

import math

import numpy as np
import scipy.linalg
import scipy.stats
from jaxtyping import Bool, Float, Int

ROWS_AT_ONCE = 1000  # rows of features that exist in float64 at the same time


def interval(
    suprema: Float[np.ndarray, " draws"], num_points: int, confidence: float = 0.95
) -> tuple[float, float]:
    """A two-sided confidence interval for E_sigma sup_h, from the suprema of independent draws.

    The class must have values in [-1, 1]. The interval follows from McDiarmid's inequality. There
    are m draws of n signs. One sign changes the mean of the suprema by at most 2 / (m n). So the
    mean is off by t with probability at most 2 exp(-m n t^2 / 2). Student's t is not used, because
    its interval has width zero if all draws are fitted.

    If training found less than the sup, the lower end still holds, but the upper end may not.
    """
    t = math.sqrt(2 * math.log(2 / (1 - confidence)) / (len(suprema) * num_points))
    mean = float(np.mean(suprema))
    return max(mean - t, -1.0), min(mean + t, 1.0)


def vc_at_least(num_points: int, draws: int, num_fitted: int, confidence: float = 0.95) -> int:
    """A lower bound on the VC dimension of a class that fits random signs of n points.

    The class fitted `num_fitted` of `draws` random signs. If it fitted all 2^n signs, the dimension
    would be at least n. A few draws cannot show that; Theorem 1 does. The draws show that the class
    fits at least a fraction p of all signs. Here p is the lower end of Clopper and Pearson's
    interval. By Sauer's lemma, a class of VC dimension v fits at most sum_{i<=v} C(n, i) of the 2^n
    signs. So v is at least the p-quantile of Binomial(n, 1/2). If a handful of draws was made and
    all were fitted, this is about n / 2.
    """
    if num_fitted == 0:
        return 0
    p = scipy.stats.beta.ppf(1 - confidence, num_fitted, draws - num_fitted + 1)
    return int(scipy.stats.binom.ppf(p, num_points, 0.5))


def kernel_ball(
    gram: Float[np.ndarray, "n n"], radius: float, signs: Float[np.ndarray, "draws n"]
) -> float:
    """The Rademacher complexity of {f: ||f||_H <= radius}, as a mean over these draws of sigma.

    It is (B/n) E ||sum_i sigma_i phi(x_i)||. The sup for one sigma is (B/n) sqrt(sigma^T K sigma),
    exactly. The ball of a linear model has K = X X^T.
    """
    squares = np.einsum("mi,mi->m", signs @ gram, signs)
    return float(radius / gram.shape[0] * np.sqrt(np.maximum(squares, 0)).mean())


def kernel_ball_bound(diagonal: Float[np.ndarray, " n"], radius: float) -> float:
    """The bound (B/n) sqrt(trace K) on the expectation of `kernel_ball`, by Jensen's inequality.

    `diagonal` has the values k(x_i, x_i).
    """
    return float(radius / len(diagonal) * math.sqrt(diagonal.sum(dtype=np.float64)))


def linear_ball(
    features: Float[np.ndarray, "n d"], radius: float, signs: Float[np.ndarray, "draws n"]
) -> float:
    """`kernel_ball` of {x -> <w, x>: ||w|| <= radius}: (B/n) E ||X^T sigma||.

    It is computed without the Gram matrix.
    """
    sums = signs.astype(features.dtype) @ features
    return float(radius / len(features) * np.linalg.norm(sums, axis=1).mean())


def linear_span(features: Float[np.ndarray, "n d"], signs: Float[np.ndarray, "draws n"]) -> float:
    """The Rademacher complexity of {x -> <w, x>: (1/n) sum_i <w, x_i>^2 <= 1}, over these draws.

    It is E ||P sigma|| / sqrt(n), where P projects on the span of the columns of X. So it is at
    most sqrt(rank X / n).
    """
    n, d = features.shape
    wide = n <= d
    values, vectors = scipy.linalg.eigh(_gram(features if wide else features.T))
    # Smaller eigenvalues may come from rounding alone. Rounding the features moves the singular
    # values by at most eps ||X||_F; rounding the Gram matrix moves its eigenvalues.
    rounding = max(np.finfo(features.dtype).eps ** 2, len(values) * np.finfo(np.float64).eps)
    kept = values > rounding * values.sum()
    if wide:
        parts = signs @ vectors[:, kept]
    else:
        basis = vectors[:, kept] / np.sqrt(values[kept])
        parts = (signs.astype(features.dtype) @ features) @ basis
    return float(np.linalg.norm(parts, axis=1).mean() / math.sqrt(n))


def _gram(rows: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k k"]:
    """The product of `rows` and its transpose, in float64 even if `rows` is float32."""
    result = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], ROWS_AT_ONCE):
        part = rows[:, start : start + ROWS_AT_ONCE].astype(np.float64)
        result += part @ part.T
    return result


def losses(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The cross-entropy of each example."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def changes(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " n"],
    replaced: Bool[np.ndarray, " n"],
) -> dict[str, float]:
    """How much the losses of examples change when one training example is replaced.

    The change of an example is |l(A_S, z) - l(A_S', z)|. Uniform stability (Bousquet and Elisseeff,
    2002) is the sup of this over z, S and S', for any labels. Here z runs over the given examples:
    "max_change" is the largest change and "mean_change" the mean. "own_change" is the largest over
    the examples that were `replaced`, removed or added; it is 0 if there are none.
    """
    difference = np.abs(after.astype(np.float64) - before)
    return {
        "max_change": float(difference.max()),
        "mean_change": float(difference.mean()),
        "own_change": float(difference[replaced].max(initial=0.0)),
    }
