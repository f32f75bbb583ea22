"""Linear models (section 5): which of the many interpolating solutions w of X w = y stochastic gradient descent finds.

Features X are [n, d], one example per row, usually with d > n. All in float64, on the host but for SGD itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float64, Int

from rethinking.errors import InputError

CONDITION = 1e12  # of the Gram matrix, beyond which its solutions have no correct digit to speak of
Loss = Callable[
    [Float[Array, ""], Float[Array, ""]], Float[Array, ""]
]  # (prediction, target) -> loss


def squared_loss(prediction: Float[Array, ""], target: Float[Array, ""]) -> Float[Array, ""]:
    """(prediction - target)^2 / 2."""
    return (prediction - target) ** 2 / 2


def minimum_norm(
    features: Float64[np.ndarray, "n d"], targets: Float64[np.ndarray, "m *c"]
) -> Float64[np.ndarray, "d *c"]:
    """The interpolating solution of smallest l2 norm: w = X^T alpha with X X^T alpha = y (equation 3).

    Targets are [n] or [n, c]. Raises InputError if X has not rank n, if lengths differ, or a number is not finite.
    """
    if len(features) != len(targets):
        raise InputError(
            f"{len(features)} examples but {len(targets)} targets. Give each example one target."
        )
    if not np.isfinite(targets).all():
        raise InputError("Targets are not finite (nan or inf). Drop or replace those.")
    return features.T @ _solve_gram(features, targets)


def span_part(
    features: Float64[np.ndarray, "n d"], vectors: Float64[np.ndarray, "d *c"]
) -> Float64[np.ndarray, "d *c"]:
    """The orthogonal projection of [d], or of each column of [d, c], on the span of the examples.

    Raises InputError as `minimum_norm`.
    """
    return features.T @ _solve_gram(features, features @ vectors)


def step_size(features: Float64[np.ndarray, "n d"]) -> float:
    """1 / max_i |x_i|^2: the largest constant step that never overshoots.

    One step multiplies the error on its example by 1 - step * |x_i|^2, which is then in [0, 1), so that no step moves
    w away from any interpolating solution. (All else equal SGD converges up to twice that step.)
    """
    return float(1 / np.square(features).sum(axis=1).max())


def sgd(
    features: Float64[np.ndarray, "n d"],
    targets: Float64[np.ndarray, " n"],
    start: Float64[np.ndarray, " d"],
    steps: int,
    seed: int = 0,
) -> Float64[np.ndarray, " d"]:
    """Literal SGD on the squared loss: `steps` times w <- w - step * e x_i, e = <w, x_i> - y_i, i drawn uniformly.

    Each step adds a multiple of an example: the part of w outside their span stays as it was. So from zero w tends to
    the minimum-norm solution, and from w_0 to that plus w_0's part outside the span. The squared distance shrinks by
    1 - lambda / (n max_i |x_i|^2) a step on average, lambda the smallest eigenvalue of X X^T.
    """
    with jax.enable_x64(True):
        order = jax.random.randint(jax.random.key(seed), (steps,), 0, len(features))
        return np.asarray(
            _sgd(
                *map(jnp.asarray, (features, targets, start)),
                jnp.asarray(step_size(features)),
                order,
            )
        )


@jax.jit
def _sgd(
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    w: Float[Array, " d"],
    step: Float[Array, ""],
    order: Int[Array, " steps"],
) -> Float[Array, " d"]:
    def update(w, i):
        return w - step * (jnp.dot(x[i], w, precision="highest") - y[i]) * x[i], None

    return jax.lax.scan(update, w, order)[0]


def hessian(
    features: Float64[np.ndarray, "n d"],
    targets: Float64[np.ndarray, " n"],
    weights: Float64[np.ndarray, " d"],
    loss: Loss = squared_loss,
) -> Float64[np.ndarray, "d d"]:
    """The Hessian of the empirical risk (1/n) sum_i loss(<w, x_i>, y_i) at w: (1/n) X^T diag(beta) X.

    beta_i is the loss's second derivative at the fitted value <w, x_i>, which is y_i at every interpolating w: there
    the Hessian is one and the same matrix. Its rank is at most n, so that for d > n it is degenerate.
    """
    with jax.enable_x64(True):
        second = jax.vmap(jax.grad(jax.grad(loss)))
        beta = np.asarray(second(jnp.asarray(features @ weights), jnp.asarray(targets)))
    return features.T @ (beta[:, None] * features) / len(features)


def null_dimension(matrix: Float64[np.ndarray, "d d"]) -> int:
    """The number of directions in which a symmetric matrix, such as a Hessian, is zero but for rounding."""
    return len(matrix) - int(np.linalg.matrix_rank(matrix, hermitian=True))


def interpolants(
    train: tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "n c"]],
    test: tuple[Float64[np.ndarray, "m d"], Float64[np.ndarray, "m c"]],
    seed: int = 0,
) -> dict[str, Float64[np.ndarray, "d c"]]:
    """Three solutions of X w = y on the training examples, for d >= n + m: one that generalizes and two that do not.

    - "minimum_norm": what SGD finds from zero.
    - "random_start": what SGD finds from a standard Gaussian w_0: the same, plus w_0's part outside the span.
    - "random_test_labels": the minimum-norm solution that also fits the test targets in random order (section 5).

    Raises InputError as `minimum_norm`, which also needs training and test examples to be independent.
    """
    rng = np.random.default_rng(seed)
    smallest = minimum_norm(*train)
    start = rng.standard_normal(smallest.shape)
    outside = start - span_part(train[0], start)
    wrong = rng.permutation(test[1])
    forced = minimum_norm(np.concatenate([train[0], test[0]]), np.concatenate([train[1], wrong]))
    return {
        "minimum_norm": smallest,
        "random_start": smallest + outside,
        "random_test_labels": forced,
    }


def _solve_gram(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """alpha of X X^T alpha = `right`."""
    n, d = features.shape
    if not np.isfinite(features).all():
        raise InputError("Features are not finite (nan or inf). Drop or replace those.")
    values, vectors = (
        scipy.linalg.eigh(features @ features.T) if 0 < n <= d else (np.zeros(1), None)
    )
    if not values[0] * CONDITION > values[-1]:
        raise InputError(
            f"{n} examples of {d} features are not linearly independent, so that not all targets can be "
            "fitted. Drop repeated examples, or take fewer of them, or more features."
        )
    coefficients = vectors.T @ right
    return vectors @ (coefficients / values.reshape(-1, *[1] * (right.ndim - 1)))
