"""Exact interpolation of a training set by a kernel (section 5, equation 3).

model = interpolate.fit(x, labels, gram.Gaussian(bandwidth=5.0))
model.predict(x_test), model.certificate
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from rethinking.errors import InputError
from rethinking.kernels import certificate as certificates
from rethinking.kernels import checks, cholesky, memory, probe
from rethinking.kernels.certificate import Certificate
from rethinking.kernels.clock import Clock, Seconds
from rethinking.kernels.gram import Kernel
from rethinking.kernels.kept import Kept
from rethinking.kernels.systems import KernelSystem, System

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Interpolant:
    """The function that solves a system, its accuracy, and the seconds that the solve took."""

    system: System
    alpha: Float[np.ndarray, "n c"]
    certificate: Certificate
    seconds: Seconds

    def predict(self, x: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The outputs for the examples x [m, ...], computed in batches.

        Column c is the output of label c. Raises InputError for no examples, and for infinite ones
        or ones of another shape.
        """
        x = checks.as_examples(x)
        if not len(x):
            raise InputError("0 examples to predict: give [m, ...] with m of at least 1")
        with jax.enable_x64(True):
            return self.system.predict(self.alpha, x)

    def error(self, x: np.ndarray, labels: Int[np.ndarray, " m"]) -> float:
        """The share of examples whose largest output is not the one of their label.

        Raises InputError unless there is one label for each example, an integer from 0.
        """
        x, labels = checks.as_examples(x), checks.as_labels(labels)
        if len(labels) != len(x):
            raise InputError(
                f"labels of shape {labels.shape} for {len(x)} examples: give one integer for each "
                "example"
            )
        if self.certificate.train_error is None and self.alpha.shape[1] == 1:
            raise InputError(
                "this model has one output, fitted to numbers, and so no classes. Compare "
                "predict(x) with the numbers instead."
            )
        return float(np.mean(self.predict(x).argmax(1) != labels))


def fit(
    x: np.ndarray,
    y: np.ndarray,
    kernel: Kernel,
    ridge: float = 0.0,
    dtype: str = "float64",
    mesh: Mesh | None = None,
) -> Interpolant:
    """The function whose coefficients solve (K + ridge I) alpha = y for the Gram matrix K of x.

    Args:
        x: examples [n, ...].
        y: labels, integers [n] from 0, which become one-hot targets; or targets, floating-point
            numbers [n, c].
        kernel: one of `rethinking.kernels.gram`, or your own.
        ridge: is added to K's diagonal.
        dtype: of the factor. A solution by a float32 factor is refined with residuals in float64.
        mesh: devices along a single axis; by default all devices.

    Raises:
        NotPositiveDefiniteError: if the matrix is not positive definite in `dtype`.
        InputError: for bad data, repeated examples without a ridge, a kernel that is not a
            `Kernel`, or too little memory; all this before any time is spent. Also if refinement
            does not reach a residual of 1e-8.
    """
    ridge = checks.check_ridge(ridge)
    n, num_features, num_outputs = checks.size(x, y)
    with jax.enable_x64(True):
        backend = cholesky.make_backend(n, dtype, mesh)
        memory.require(backend, num_outputs, num_features)
        train = checks.training_set(x, y, repeats=ridge > 0)
        probe.check_kernel(kernel, train.x, backend)
        return solve(KernelSystem(kernel, train.x, backend), train.targets, train.labels, ridge)


def solve(
    system: System,
    targets: Float[np.ndarray, "n c"],
    labels: Int[np.ndarray, " n"] | None = None,
    ridge: float = 0.0,
    before_panel: Callable[[], None] = lambda: None,
    kept: Kept | None = None,
) -> Interpolant:
    """The function whose coefficients solve (K + ridge I) alpha = targets, factored and certified.

    `labels` are for the training error. `before_panel` is called before each panel of the factor is
    computed, and may end the solve by an exception. `kept` continues an interrupted solve: see
    `rethinking.kernels.kept`. For the errors see `fit`.
    """
    backend = system.backend
    ridge = checks.check_ridge(ridge, str(backend.dtype))
    checks.check_targets(targets, labels, backend.layout.n, str(backend.dtype))
    clock = Clock()

    def timed_panel(storage: Any, g: int) -> Any:
        before_panel()
        jax.block_until_ready(storage)
        clock.lap("factor")
        storage = jax.block_until_ready(system.make_panel(storage, ridge, g))
        clock.lap("gram")
        return storage

    with jax.enable_x64(True), clock:
        storage = jax.block_until_ready(system.storage(kept))
        clock.lap("gram")
        factor = cholesky.factor(timed_panel, system.backend, storage, kept)
        jax.block_until_ready(factor.storage)
        clock.lap("factor")
        solution = cholesky.refine(factor, lambda v: system.product(v, ridge), targets)
        certificate = certificates.certify(factor, system, ridge, solution, targets, labels)
        clock.lap("solve")
    _LOG.info("%s", certificate)
    return Interpolant(system, solution.alpha, certificate, clock.seconds)
