"""Linear models (section 5): the many solutions of X w = y, and the one that SGD finds.

Features X are [n, d], one example per row, usually with d > n. Targets y are [n], or [n, c] for
c outputs, and weights w are [d] or [d, c]. All numbers are float64. JAX computes SGD and the
derivatives of losses; NumPy and SciPy compute the rest.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float64, UInt32

from rethinking.errors import InputError

# If the Gram matrix has a larger condition number, hardly any digit of a solution is correct.
CONDITION = 1e12
# (prediction, target) -> loss
Loss = Callable[[Float[Array, ""], Float[Array, ""]], Float[Array, ""]]


def squared_loss(prediction: Float[Array, ""], target: Float[Array, ""]) -> Float[Array, ""]:
    """(prediction - target)^2 / 2."""
    return (prediction - target) ** 2 / 2


def logistic_loss(prediction: Float[Array, ""], target: Float[Array, ""]) -> Float[Array, ""]:
    """log(1 + exp(prediction)) - target * prediction, for targets 0 and 1."""
    return jnp.logaddexp(0.0, prediction) - target * prediction


def fourier_features(
    points: Float64[np.ndarray, "n p"],
    num_frequencies: int,
    bandwidth: float,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "n d"]:
    """Random Fourier features (Rahimi and Recht, 2007), d = 2 * num_frequencies.

    These are the cosines and sines of Gaussian projections of a point. Their dot product
    approximates the kernel exp(-|z - z'|^2 / (2 bandwidth^2)). Every point has norm 1.
    """
    frequencies = rng.standard_normal((points.shape[1], num_frequencies)) / bandwidth
    angles = points @ frequencies
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return waves / np.sqrt(num_frequencies)


def minimum_norm(
    features: Float64[np.ndarray, "n d"], targets: Float64[np.ndarray, "m *c"]
) -> Float64[np.ndarray, "d *c"]:
    """The solution of X w = y with the smallest l2 norm.

    It is w = X^T alpha with X X^T alpha = y (equation 3).

    Raises InputError if the rank of X is below n, if features and targets differ in length, or if
    a number is not finite.
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
    """The orthogonal projection of a vector, or of each column of a matrix, on the examples' span.

    Raises InputError if the examples are linearly dependent or not finite.
    """
    return features.T @ _solve_gram(features, features @ vectors)


def step_size(features: Float64[np.ndarray, "n d"]) -> float:
    """1 / max_i |x_i|^2: the largest constant step with which SGD never overshoots.

    One step multiplies the error on its example by 1 - step * |x_i|^2. With this step the factor is
    in [0, 1), so no step moves w away from any solution. SGD converges with up to twice this step.
    """
    return float(1 / np.square(features).sum(axis=1).max())


def contraction(features: Float64[np.ndarray, "n d"]) -> float:
    """A bound on the factor by which one step of `sgd` shrinks the squared distance to its limit.

    It is 1 - lambda / (n max_i |x_i|^2), with lambda the smallest eigenvalue of X X^T. It bounds
    the mean over the example that the step draws.
    """
    smallest = scipy.linalg.eigvalsh(features @ features.T)[0]
    return float(1 - smallest * step_size(features) / len(features))


def sgd(
    features: Float64[np.ndarray, "n d"],
    targets: Float64[np.ndarray, "n *c"],
    start: Float64[np.ndarray, "d *c"],
    steps: int,
    seed: int = 0,
    first: int = 0,
) -> Float64[np.ndarray, "d *c"]:
    """The weights after `steps` steps of literal SGD on the squared loss, from `start`.

    A step is w <- w - step_size * e x_i with e = <w, x_i> - y_i (section 5). The example i is drawn
    uniformly, from the seed and the step's number alone. Steps are numbered from `first`. So a call
    with k steps, followed by one with first = k, equals one longer call.

    Each step adds a multiple of an example, so the part of w outside the examples' span never
    changes. From zero, w tends to the minimum-norm solution. From w_0 it tends to that solution
    plus the part of w_0 outside the span. See `contraction` for how fast.
    """
    with jax.enable_x64(True):
        weights = _sgd(
            jnp.asarray(features),
            jnp.asarray(targets.reshape(len(targets), -1)),
            jnp.asarray(start.reshape(len(start), -1)),
            jnp.asarray(step_size(features)),
            jax.random.key(seed),
            first + jnp.arange(steps, dtype=jnp.uint32),
        )
    return np.asarray(weights).reshape(start.shape)


@jax.jit
def _sgd(
    x: Float[Array, "n d"],
    y: Float[Array, "n c"],
    w: Float[Array, "d c"],
    step: Float[Array, ""],
    key: Array,
    numbers: UInt32[Array, " steps"],
) -> Float[Array, "d c"]:
    def draw(number):
        return jax.random.randint(jax.random.fold_in(key, number), (), 0, len(x))

    def update(w, i):
        error = jnp.dot(x[i], w, precision="highest") - y[i]
        return w - step * jnp.outer(x[i], error), None

    return jax.lax.scan(update, w, jax.vmap(draw)(numbers))[0]


def second_derivatives(
    features: Float64[np.ndarray, "n d"],
    targets: Float64[np.ndarray, " n"],
    weights: Float64[np.ndarray, " d"],
    loss: Loss = squared_loss,
) -> Float64[np.ndarray, " n"]:
    """beta_i, the second derivative of the loss of example i by its prediction <w, x_i>.

    The Hessian of the empirical risk (1/n) sum_i loss(<w, x_i>, y_i) follows from them: see
    `hessian_rows`. At a solution <w, x_i> = y_i, so they are the same at every solution.
    """
    with jax.enable_x64(True):
        second = jax.vmap(jax.grad(jax.grad(loss)))
        return np.asarray(second(jnp.asarray(features @ weights), jnp.asarray(targets)))


def hessian_rows(
    features: Float64[np.ndarray, "n d"], beta: Float64[np.ndarray, " n"], rows: slice
) -> Float64[np.ndarray, "r d"]:
    """Some rows of the Hessian of the empirical risk, (1/n) X^T diag(beta) X.

    `beta` are the `second_derivatives`.
    """
    return features[:, rows].T @ (beta[:, None] * features) / len(features)


def null_dimension(features: Float64[np.ndarray, "n d"], beta: Float64[np.ndarray, " n"]) -> int:
    """The dimension of the Hessian's null space, up to rounding: at least d - n.

    `beta` are the `second_derivatives`, of which none may be negative.
    """
    root = np.sqrt(beta)[:, None] * features  # The Hessian is root^T root / n.
    return features.shape[1] - int(np.linalg.matrix_rank(root @ root.T, hermitian=True))


def interpolants(
    train: tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "n c"]],
    test: tuple[Float64[np.ndarray, "m d"], Float64[np.ndarray, "m c"]],
    start: Float64[np.ndarray, "d c"],
    rng: np.random.Generator,
) -> dict[str, Float64[np.ndarray, "d c"]]:
    """Three solutions of X w = y on the training examples; `train` and `test` are (X, y).

    - "minimum_norm": what SGD finds from zero.
    - "random_start": what SGD finds from `start`: the same plus the part of `start` outside the
      span of the training examples.
    - "random_test_labels": the minimum-norm solution that also gives the test examples each
      other's targets, in random order (section 5).

    Raises InputError if training and test examples together are linearly dependent, or if a number
    is not finite.
    """
    smallest = minimum_norm(*train)
    wrong = rng.permutation(test[1])
    both = np.concatenate([train[0], test[0]]), np.concatenate([train[1], wrong])
    return {
        "minimum_norm": smallest,
        "random_start": smallest + start - span_part(train[0], start),
        "random_test_labels": minimum_norm(*both),
    }


def _solve_gram(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """alpha with X X^T alpha = `right`."""
    n, d = features.shape
    if not np.isfinite(features).all():
        raise InputError("Features are not finite (nan or inf). Drop or replace those.")
    dependent = InputError(
        f"{n} examples of {d} features are not linearly independent, so not all targets can be "
        "fitted. Drop repeated examples, take fewer examples, or take more features."
    )
    if not 0 < n <= d:
        raise dependent
    values, vectors = scipy.linalg.eigh(features @ features.T)
    if not values[0] * CONDITION > values[-1]:
        raise dependent
    coefficients = (vectors.T @ right).reshape(n, -1) / values[:, None]
    return (vectors @ coefficients).reshape(right.shape)
