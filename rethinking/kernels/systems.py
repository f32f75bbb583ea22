"""The linear systems that are solved: what `rethinking.kernels.interpolate` needs to know of each."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rethinking.errors import InputError
from rethinking.kernels import cholesky
from rethinking.kernels.cholesky import Backend
from rethinking.kernels.gram import Kernel

Blocks = Callable[[np.ndarray], Iterator[np.ndarray]]


@runtime_checkable
class System(Protocol):
    """A symmetric positive definite matrix K + ridge I, and the functions that its solutions stand for."""

    ridge: float
    backend: Backend

    def storage(self) -> Any:
        """Where the matrix is to be made, in the backend's storage."""

    def make_panel(self, storage: Any, g: int) -> Any:
        """Makes panel g of the matrix there; returns the storage."""

    def product(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """The matrix times v, in float64."""

    def predict(self, alpha: Float[np.ndarray, "n c"], z: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The solution's values at the examples z."""

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> Float[np.ndarray, " c"]:
        """Each output's squared norm in its function space, given alpha and K alpha: alpha^T K alpha."""
        return (alpha * fitted).sum(0)


class KernelSystem(System):
    """The Gram matrix of a kernel; the function sum_i alpha_i k(x_i, .)."""

    def __init__(self, kernel: Kernel, x: Float[np.ndarray, "n d"], ridge: float, backend: Backend):
        self.kernel, self.ridge, self.backend = kernel, ridge, backend
        self._num_features = x.shape[1]
        self._dealt = backend.deal_examples(x)
        self._precise = cholesky.in_float64(backend)
        self._dealt_precise = (
            self._dealt if self._precise is backend else self._precise.deal_examples(x)
        )

    def storage(self) -> Any:
        return self.backend.unmade()

    def make_panel(self, storage: Any, g: int) -> Any:
        return self.backend.gram_panel(storage, self.kernel, self._dealt, self.ridge, g)

    def product(self, v: np.ndarray) -> np.ndarray:
        return self._precise.gram_product(self.kernel, self._dealt_precise, self.ridge, v)

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        z = z.reshape(len(z), -1).astype(np.float64)
        if z.shape[1] != self._num_features:
            raise InputError(
                f"{len(z)} examples of {z.shape[1]} features, where those fitted have "
                f"{self._num_features}: [m, ...] of the same shapes is needed, x[None] for a single x"
            )
        if not (finite := np.isfinite(z).all(1)).all():
            raise InputError(
                f"the features of example {finite.argmin()} are not finite ({(~finite).sum()} such "
                "examples)"
            )
        return self._precise.predict(self.kernel, self._dealt_precise, alpha, z)


class FeatureSystem(System):
    """The Gram matrix of features that are too many to exist at once; the linear function of least norm.

    Args:
        blocks: from examples to their features, some at a time: arrays [n, f] whose columns together are all features.
        x: the training examples.
    """

    def __init__(self, blocks: Blocks, x: np.ndarray, ridge: float, backend: Backend):
        self.blocks, self.x, self.ridge, self.backend = blocks, x, ridge, backend
        self._last: tuple[np.ndarray, np.ndarray] | None = (
            None  # what `weights` was last asked for, and its answer
        )

    def storage(self) -> Any:
        storage = self.backend.zeros()
        for block in self.blocks(self.x):
            storage = self.backend.add_product(storage, block)
        return storage

    def make_panel(self, storage: Any, g: int) -> Any:
        return self.backend.add_ridge(storage, self.ridge, g)

    def product(self, v: np.ndarray) -> np.ndarray:
        product, weights = self.ridge * v, []
        for block in self.blocks(self.x):
            weights.append(block.T @ v)
            product += block @ weights[-1]
        self._last = v, np.concatenate(weights)
        return product

    def weights(self, alpha: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "f c"]:
        """The linear function's coefficients, features^T alpha; those of the last `product` are not computed again."""
        if self._last is None or self._last[0] is not alpha:
            self._last = alpha, np.concatenate([block.T @ alpha for block in self.blocks(self.x)])
        return self._last[1]

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        weights, first = self.weights(alpha), 0
        outputs = np.zeros((len(z), alpha.shape[1]))
        for block in self.blocks(z):
            outputs += block @ weights[first : first + block.shape[1]]
            first += block.shape[1]
        return outputs


class CentersSystem(FeatureSystem):
    """A kernel placed at given centers instead of the examples: f = sum_j w_j k(c_j, .), w of least length.

    The features of x are k(x, c_j); norms are those of f in the kernel's space, w^T K(c, c) w, as for `KernelSystem`.
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
            return (
                kernel(z, centers[first : first + block]) for first in range(0, len(centers), block)
            )

        super().__init__(blocks, x, 0.0, backend)
        self.kernel, self.centers = kernel, centers

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        weights = self.weights(alpha)
        centers = cholesky.make_backend(
            len(self.centers), "float64", getattr(self.backend, "mesh", None)
        )
        return (
            weights
            * centers.gram_product(self.kernel, centers.deal_examples(self.centers), 0.0, weights)
        ).sum(0)
