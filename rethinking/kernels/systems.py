"""The linear systems that `rethinking.kernels.interpolate` solves: a matrix K and its functions."""

import abc
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from rethinking.errors import InputError
from rethinking.kernels import checks
from rethinking.kernels.backend import Backend
from rethinking.kernels.device_features import Block, DeviceFeatures
from rethinking.kernels.gram import Kernel
from rethinking.kernels.kept import Kept
from rethinking.kernels.sharded import ShardedBackend

Blocks = Callable[..., Iterator[np.ndarray]]
# The number of examples from which the mean of K's diagonal is computed.
DIAGONAL_SAMPLE = 1000
# The number of examples whose kernel with all centers is looked at first.
SAMPLE_OF_CENTERS = 16
# How many centers' kernel with all examples exists at once.
CENTERS_PER_BLOCK = 1000


class System(abc.ABC):
    """A symmetric positive definite matrix K, and the functions that solutions alpha stand for.

    The system (K + ridge I) alpha = y is solved. `backend` stores K and then its factor. A pickled
    system is built anew from its arguments, with a backend on the devices of the other program.
    """

    backend: Backend

    @abc.abstractmethod
    def storage(self, kept: Kept | None = None) -> Any:
        """A storage of the backend, in which `make_panel` makes K's panels.

        `kept` gives and keeps what was computed for it.
        """

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
        self.x = checks.flatten(x)
        self.backend = backend
        _check_size(self.x, backend)
        with jax.enable_x64(True):
            self._examples = backend.distribute_examples(self.x)
            self._precise = backend.in_float64()
            self._precise_examples = self._examples
            if self._precise is not backend:
                self._precise_examples = self._precise.distribute_examples(self.x)

    def __reduce__(self) -> tuple:
        return KernelSystem, (self.kernel, self.x, self.backend)

    def storage(self, kept: Kept | None = None) -> Any:
        return self.backend.empty()

    def make_panel(self, storage: Any, ridge: float, g: int) -> Any:
        return self.backend.gram_panel(storage, self.kernel, self._examples, ridge, g)

    def product(self, v: np.ndarray, ridge: float) -> np.ndarray:
        return self._precise.gram_product(self.kernel, self._precise_examples, ridge, v)

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        z = checks.flatten(z, self.x.shape[1])
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
            To continue an interrupted sum, it is also called with a number of blocks to leave out.
        x: the training examples.
        backend: where K is stored.
        product_dtype: in which type features of a block are multiplied. Blocks are summed in the
            type of the matrix, which is the default.
        on_devices: the same features by JAX. If the backend computes by JAX, each device computes
            the features of its own rows, and they stay there. Then `blocks` is not called.
    """

    def __init__(
        self,
        blocks: Blocks,
        x: np.ndarray,
        backend: Backend,
        on_devices: DeviceFeatures | None = None,
        product_dtype: str | None = None,
    ):
        self.blocks = blocks
        self.product_dtype = product_dtype
        self.on_devices = on_devices if isinstance(backend, ShardedBackend) else None
        self.x = checks.as_examples(x)
        self.backend = backend
        checks.require_finite("features", self.x)
        _check_size(self.x, backend)
        # The last vectors that `product` multiplied, and their products with the features.
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def storage(self, kept: Kept | None = None) -> Any:
        storage, first = kept.restore_sum() if kept is not None else (self.backend.zeros(), 0)
        for number, block in enumerate(self._features(self.x, first), first + 1):
            features = block.rows if isinstance(block, Block) else block
            storage = self.backend.add_product(storage, features, self.product_dtype)
            if kept is not None:
                kept.note_sum(storage, number)
        return storage

    def make_panel(self, storage: Any, ridge: float, g: int) -> Any:
        return self.backend.add_ridge(storage, ridge, g)

    def product(self, v: np.ndarray, ridge: float) -> np.ndarray:
        product = ridge * v
        weights = []
        for block in self._features(self.x):
            weights.append(_transposed_times(block, v))
            product += _times(block, weights[-1])
        self._last = v, np.concatenate(weights)
        return product

    def weights(self, alpha: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "f c"]:
        """The coefficients of the linear function, features^T alpha.

        `product` computes them too. So those of its last argument are kept.
        """
        if self._last is None or self._last[0] is not alpha:
            weights = [_transposed_times(block, alpha) for block in self._features(self.x)]
            self._last = alpha, np.concatenate(weights)
        return self._last[1]

    def _features(self, x: np.ndarray, first: int = 0) -> Iterator[np.ndarray | Block]:
        """Yields the blocks of features of x. Raises InputError for a block that is not one."""
        block = None
        for block in self._blocks(x, first):
            shape = block.shape if isinstance(block, Block) else np.shape(block)
            if len(shape) != 2 or shape[0] != len(x):
                raise InputError(
                    f"the function of features gives a block of shape {shape} for {len(x)} "
                    f"examples. It must yield arrays [{len(x)}, f]."
                )
            finite = block.is_finite() if isinstance(block, Block) else np.isfinite(block).all()
            if not finite:
                raise InputError("some features are NaN or infinite. They must be finite.")
            yield block
        if block is None and not first:
            raise InputError(
                "the function of features yields no block. It is called several times, and must "
                "yield all features each time."
            )

    def _blocks(self, x: np.ndarray, first: int) -> Iterator[np.ndarray | Block]:
        if self.on_devices is None:
            yield from self.blocks(x, first) if first else self.blocks(x)
            return
        backend = self.backend
        if len(x) != backend.layout.n:
            backend = backend.like(len(x))
        yield from self.on_devices.blocks(backend, x, first)

    def predict(self, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        z = checks.as_examples(z)
        if z.shape[1:] != self.x.shape[1:]:
            raise InputError(
                f"examples of shape {z.shape[1:]}, but the model was fitted to examples of shape "
                f"{self.x.shape[1:]}. Give such examples; for a single example x that is x[None]."
            )
        checks.require_finite("features", z)
        weights = self.weights(alpha)
        outputs = np.zeros((len(z), alpha.shape[1]))
        first = 0
        for block in self._features(z):
            stop = first + block.shape[1]
            outputs += _times(block, weights[first:stop])
            first = stop
        return outputs

    def gram(self, x: np.ndarray) -> np.ndarray:
        if self.on_devices is not None:
            backend = self.backend.like(len(x))
            storage = backend.zeros()
            for block in self.on_devices.blocks(backend, x):
                storage = backend.add_product(storage, block.rows)
            return backend.whole(storage)
        gram = np.zeros((len(x), len(x)))
        for block in self._features(x):
            gram += block @ block.T
        return gram

    def mean_diagonal(self, x: np.ndarray) -> float:
        sample = x[:DIAGONAL_SAMPLE]
        total = 0.0
        for block in self._features(sample):
            features = block.on_host() if isinstance(block, Block) else block
            total += np.square(features, dtype=np.float64).sum()
        return float(total / len(sample))


def _times(block: np.ndarray | Block, weights: np.ndarray) -> np.ndarray:
    return block.times(weights) if isinstance(block, Block) else block @ weights


def _transposed_times(block: np.ndarray | Block, v: np.ndarray) -> np.ndarray:
    return block.transposed_times(v) if isinstance(block, Block) else block.T @ v


class CentersSystem(FeatureSystem):
    """The features are a kernel's values k(x, c_j) at given centers c_j.

    The function is f = sum_j w_j k(c_j, .) with the least ||w||. Its norm is taken in the kernel's
    space, as for `KernelSystem`: w^T K(c, c) w. `before_block` is called before each block of
    kernel values is computed, and may raise an exception. A pickled system forgets it.

    Raises InputError if the kernel is 0 everywhere.
    """

    def __init__(
        self,
        kernel: Kernel,
        centers: Float[np.ndarray, "m d"],
        x: Float[np.ndarray, "n d"],
        backend: Backend,
        block: int = CENTERS_PER_BLOCK,
        before_block: Callable[[], None] = lambda: None,
    ):
        def blocks(z: np.ndarray, skipped: int = 0) -> Iterator[np.ndarray]:
            z = z.reshape(len(z), -1).astype(np.float64)
            for first in range(skipped * block, len(centers), block):
                before_block()
                yield kernel(z, centers[first : first + block])

        def parameters(skipped: int) -> Iterator[tuple[np.ndarray]]:
            for first in range(skipped * block, len(centers), block):
                before_block()
                yield (centers[first : first + block],)

        on_devices = None
        # The kernel's values must be in float64, also if the factor is not.
        if isinstance(backend.in_float64(), ShardedBackend):
            on_devices = DeviceFeatures(kernel, parameters, checks.flatten, in_float64=True)
        super().__init__(blocks, x, backend, on_devices)
        if not np.any(kernel(checks.flatten(self.x[:SAMPLE_OF_CENTERS]), centers)):
            raise InputError(
                f"the kernel {kernel!r} is 0 for each of the first examples and all centers. "
                "Choose a wider kernel: for instance a larger bandwidth."
            )
        self.kernel = kernel
        self.centers = centers
        self._block = block
        self._before_block = before_block

    def __reduce__(self) -> tuple:
        return CentersSystem, (self.kernel, self.centers, self.x, self.backend, self._block)

    def square_norms(self, alpha: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        weights = self.weights(alpha)
        backend = self.backend.in_float64().like(len(self.centers))
        centers = backend.distribute_examples(self.centers)
        product = backend.gram_product(self.kernel, centers, 0.0, weights, self._before_block)
        return (weights * product).sum(0)


def _check_size(x: np.ndarray, backend: Backend) -> None:
    if len(x) != backend.layout.n:
        raise InputError(
            f"{len(x)} examples, but the backend stores a matrix of {backend.layout.n} rows. Make "
            f"one by cholesky.make_backend({len(x)}, dtype)."
        )
