"""The linear systems that are solved: what `rethinking.kernels.interpolate` needs to know of each."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rethinking.kernels import cholesky
from rethinking.kernels.cholesky import Backend
from rethinking.kernels.gram import Kernel

Blocks = Callable[[np.ndarray], Iterator[np.ndarray]]


@runtime_checkable
class System(Protocol):
    """A symmetric positive definite matrix K + ridge I, and the functions that its solutions stand for."""

    ridge: float
    backend: Backend

    def panel(self, g: int) -> Any:
        """Panel g of the matrix, new, as `backend` lays it out."""

    def product(self, v: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """The matrix times v, in float64."""

    def predict(self, alpha: Float[np.ndarray, "n c"], z: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The solution's values at the examples z."""

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> Float[np.ndarray, " c"]:
        """Each output's squared norm in its function space, given alpha and K alpha."""


class KernelSystem:
    """The Gram matrix of a kernel; the function sum_i alpha_i k(x_i, .)."""

    def __init__(self, kernel: Kernel, x: Float[np.ndarray, "n d"], ridge: float, backend: Backend):
        self.kernel, self.ridge, self.backend = kernel, ridge, backend
        self._dealt = backend.deal(x)
        self._precise = cholesky.in_float64(backend)
        self._dealt_precise = self._dealt if self._precise is backend else self._precise.deal(x)

    def panel(self, g: int) -> Any:
        return self.backend.gram_panel(self.kernel, self._dealt, self.ridge, g)

    def product(self, v: np.ndarray) -> np.ndarray:
        return self._precise.gram_product(self.kernel, self._dealt_precise, self.ridge, v)

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        z = z.reshape(len(z), -1).astype(np.float64)
        return self._precise.predict(self.kernel, self._dealt_precise, alpha, z)

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        return (alpha * fitted).sum(0)


class FeatureSystem:
    """The Gram matrix of features that are too many to exist at once; the linear function of least norm.

    Args:
        blocks: from examples to their features, some at a time: arrays [n, f] whose columns together are all features.
        x: the training examples.
        scale: factor on every product of features.
    """

    def __init__(self, blocks: Blocks, x: np.ndarray, ridge: float, backend: Backend, scale: float = 1.0):
        self.blocks, self.x, self.ridge, self.backend, self.scale = blocks, x, ridge, backend, scale
        self._panels: list[Any] = []

    def panel(self, g: int) -> Any:
        if g == 0:
            self._panels = self._accumulate()
        panel, self._panels[g] = self._panels[g], None  # so that it is overwritten in place
        return self.backend.add_ridge(panel, self.ridge, g)

    def _accumulate(self) -> list[Any]:
        panels = [self.backend.empty_panel(g) for g in range(self.backend.layout.num_panels)]
        for block in self.blocks(self.x):
            dealt = self.backend.deal(block * block.dtype.type(np.sqrt(self.scale)))
            for g in range(len(panels)):
                panels[g] = self.backend.add_product(panels[g], dealt, g)
        return panels

    def product(self, v: np.ndarray) -> np.ndarray:
        product = self.ridge * v
        for block in self.blocks(self.x):
            product += self.scale * (block @ (block.T @ v))
        return product

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        outputs = np.zeros((len(z), alpha.shape[1]))
        for mine, theirs in zip(self.blocks(self.x), self.blocks(z), strict=True):
            outputs += self.scale * (theirs @ (mine.T @ alpha))
        return outputs

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        return (alpha * fitted).sum(0)


class CentersSystem(FeatureSystem):
    """A kernel placed at given centers instead of the examples: f = sum_j w_j k(c_j, .), w of least length.

    The features of x are k(x, c_j); norms are those of f in the kernel's space, w^T K(c, c) w, as for `KernelSystem`.
    """

    def __init__(self, kernel: Kernel, centers: Float[np.ndarray, "m d"], x: Float[np.ndarray, "n d"],
                 backend: Backend, block: int = 1000):  # fmt: skip
        def blocks(z: np.ndarray) -> Iterator[np.ndarray]:
            z = z.reshape(len(z), -1).astype(np.float64)
            return (kernel(z, centers[first : first + block]) for first in range(0, len(centers), block))

        super().__init__(blocks, x, 0.0, backend)
        self.kernel, self.centers = kernel, centers

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        weights = np.concatenate([block.T @ alpha for block in self.blocks(self.x)])
        centers = cholesky.make_backend(len(self.centers), "float64", getattr(self.backend, "mesh", None))
        return (weights * centers.gram_product(self.kernel, centers.deal(self.centers), 0.0, weights)).sum(0)
