"""The linear systems that `rethinking.kernels.interpolate` solves: a matrix K and its functions."""

import abc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from rethinking.errors import InputError
from rethinking.kernels.backend import Backend
from rethinking.kernels.gram import Kernel

Blocks = Callable[[np.ndarray], Iterator[np.ndarray]]
# The mean of K's diagonal is computed from so many examples.
DIAGONAL_SAMPLE = 1000


class System(abc.ABC):
    """A symmetric positive definite matrix K, and the functions that solutions alpha stand for.

    The system (K + ridge I) alpha = y is solved. `backend` stores K and then its factor.
    """

    backend: Backend

    @abc.abstractmethod
    def storage(self) -> Any:
        """A storage of the backend, in which `make_panel` makes K's panels."""

    @abc.abstractmethod
    def make_panel(self, storage: Any, ridge: float, g: int) -> Any:
        """The storage with panel g of K + ridge I."""

    @abc.abstractmethod
    def product(self, v: Float[np.ndarray, "n c"], ridge: float) -> Float[np.ndarray, "n c"]:
        """(K + ridge I) v, in float64."""

    @abc.abstractmethod
    def predict(self, alpha: Float[np.ndarray, "n c"], z: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The values of the solution's function at the examples z [m, ...]."""

    @abc.abstractmethod
    def gram(self, x: np.ndarray) -> Float[np.ndarray, "m m"]:
        """The matrix that K would be for the examples x, as one array on this host."""

    @abc.abstractmethod
    def mean_diagonal(self, x: np.ndarray) -> float:
        """The mean of the diagonal of `gram(x)`, estimated from the first examples."""

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> Float[np.ndarray, " c"]:
        """The squared norm of each output in its function space: alpha^T K alpha.

        `fitted` is K alpha.
        """
        return (alpha * fitted).sum(0)


class KernelSystem(System):
    """K is the Gram matrix of a kernel. The function is sum_i alpha_i k(x_i, .)."""

    def __init__(self, kernel: Kernel, x: Float[np.ndarray, "n d"], backend: Backend):
        self.kernel = kernel
        self.backend = backend
        self._num_features = x.shape[1]
        self._examples = backend.distribute_examples(x)
        self._precise = backend.in_float64()
        self._precise_examples = self._examples
        if self._precise is not backend:
            self._precise_examples = self._precise.distribute_examples(x)

    def storage(self) -> Any:
        return self.backend.empty()

    def make_panel(self, storage: Any, ridge: float, g: int) -> Any:
        return self.backend.gram_panel(storage, self.kernel, self._examples, ridge, g)

    def product(self, v: np.ndarray, ridge: float) -> np.ndarray:
        return self._precise.gram_product(self.kernel, self._precise_examples, ridge, v)

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        z = z.reshape(len(z), -1).astype(np.float64)
        if z.shape[1] != self._num_features:
            raise InputError(
                f"{len(z)} examples of {z.shape[1]} features, but the model was fitted to "
                f"{self._num_features} features. Give examples [m, ...] of the same shape; for a "
                "single example x that is x[None]."
            )
        finite = np.isfinite(z).all(1)
        if not finite.all():
            raise InputError(
                f"the features of example {finite.argmin()} are not finite ({(~finite).sum()} such "
                "examples). Remove or repair them."
            )
        return self._precise.predict(self.kernel, self._precise_examples, alpha, z)

    def gram(self, x: np.ndarray) -> np.ndarray:
        return self.kernel(x, x)

    def mean_diagonal(self, x: np.ndarray) -> float:
        entries = [self.kernel(row[None], row[None])[0, 0] for row in x[:DIAGONAL_SAMPLE]]
        return float(np.mean(entries))


class FeatureSystem(System):
    """K is the Gram matrix of features that need too much memory to exist at once.

    The function is the linear function of the features with the least norm.

    Args:
        blocks: yields the features of examples in arrays [n, f], whose columns together are all.
        x: the training examples.
        backend: where K is stored.
    """

    def __init__(self, blocks: Blocks, x: np.ndarray, backend: Backend):
        self.blocks = blocks
        self.x = x
        self.backend = backend
        # The last vectors that `product` multiplied, and their products with the features.
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def storage(self) -> Any:
        storage = self.backend.zeros()
        for block in self.blocks(self.x):
            storage = self.backend.add_product(storage, block)
        return storage

    def make_panel(self, storage: Any, ridge: float, g: int) -> Any:
        return self.backend.add_ridge(storage, ridge, g)

    def product(self, v: np.ndarray, ridge: float) -> np.ndarray:
        product = ridge * v
        weights = []
        for block in self.blocks(self.x):
            weights.append(block.T @ v)
            product += block @ weights[-1]
        self._last = v, np.concatenate(weights)
        return product

    def weights(self, alpha: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "f c"]:
        """The coefficients of the linear function, features^T alpha.

        `product` computes them too. So those of its last argument are kept.
        """
        if self._last is None or self._last[0] is not alpha:
            self._last = alpha, np.concatenate([block.T @ alpha for block in self.blocks(self.x)])
        return self._last[1]

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        weights = self.weights(alpha)
        outputs = np.zeros((len(z), alpha.shape[1]))
        first = 0
        for block in self.blocks(z):
            stop = first + block.shape[1]
            outputs += block @ weights[first:stop]
            first = stop
        return outputs

    def gram(self, x: np.ndarray) -> np.ndarray:
        gram = np.zeros((len(x), len(x)))
        for block in self.blocks(x):
            gram += block @ block.T
        return gram

    def mean_diagonal(self, x: np.ndarray) -> float:
        sample = x[:DIAGONAL_SAMPLE]
        total = sum(np.square(block, dtype=np.float64).sum() for block in self.blocks(sample))
        return float(total / len(sample))


class CentersSystem(FeatureSystem):
    """The features are a kernel's values k(x, c_j) at given centers c_j.

    The function is f = sum_j w_j k(c_j, .) with the least ||w||. Its norm is taken in the kernel's
    space, as for `KernelSystem`: w^T K(c, c) w.
    """

    def __init__(
        self,
        kernel: Kernel,
        centers: Float[np.ndarray, "m d"],
        x: Float[np.ndarray, "n d"],
        backend: Backend,
        block: int = 1000,
    ):
        def blocks(z: np.ndarray) -> Iterator[np.ndarray]:
            z = z.reshape(len(z), -1).astype(np.float64)
            for first in range(0, len(centers), block):
                yield kernel(z, centers[first : first + block])

        super().__init__(blocks, x, backend)
        self.kernel = kernel
        self.centers = centers

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        weights = self.weights(alpha)
        backend = self.backend.in_float64().like(len(self.centers))
        centers = backend.distribute_examples(self.centers)
        product = backend.gram_product(self.kernel, centers, 0.0, weights)
        return (weights * product).sum(0)
