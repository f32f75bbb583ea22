"""Exact interpolation of a training set by a kernel (section 5, equation 3), with a certificate of what was reached.

model = interpolate.fit(x, labels, gram.Gaussian(bandwidth=5.0))
model.predict(x_test), model.certificate
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from rethinking.errors import InputError
from rethinking.kernels import cholesky, memory
from rethinking.kernels.blas import BlasBackend
from rethinking.kernels.cholesky import Backend, Cholesky
from rethinking.kernels.gram import Kernel
from rethinking.kernels.systems import KernelSystem, System
from rethinking.repeats import first_occurrences

_LOG = logging.getLogger(__name__)
REFINED = 1e-10  # residual, relative to the targets, at which a solution is refined no more
MOST_REFINEMENTS = 20


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a solution alpha of (K + ridge I) alpha = y is worth; residuals are computed in float64."""

    residual: float  # ||(K + ridge I) alpha - y|| / ||y||, Frobenius norms
    largest_residual: float  # its largest entry, in units of y
    train_error: (
        float | None
    )  # share of the examples whose largest output isn't their label's; None without labels
    norm: float  # of the function in the kernel's space: the root of the sum over outputs of alpha^T K alpha
    norms: list[float]  # of each output
    condition: float  # estimate of the matrix's condition number, 1-norm
    error: float  # estimate of ||alpha - exact|| / ||exact||: the condition number times the backward error
    refinements: int  # steps of iterative refinement
    dtype: str  # of the factor

    def __str__(self) -> str:
        digits = max(0, math.floor(-math.log10(max(self.error, 1e-17))))
        reached = (
            f"residual {self.residual:.1e}, condition {self.condition:.1e}, norm {self.norm:.4g}"
        )
        holds = (
            f"alpha holds to about {digits} digits"
            if digits
            else "alpha itself is not determined to one digit"
        )
        return f"{reached}; {holds} ({self.dtype} factor, {self.refinements} refinements)"


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Where the time went: the compilation of a step's programs is no part of the step."""

    gram: float
    factor: float
    solve: float
    compile: float


@dataclasses.dataclass(frozen=True)
class Interpolant:
    """The function sum_i alpha_i k(x_i, .), its certificate and the seconds spent on it."""

    alpha: Float[np.ndarray, "n c"]
    certificate: Certificate
    seconds: Seconds
    # Examples [m, ...] -> outputs, in batches; InputError for none, ones unlike those fitted and infinite ones.
    predict: Callable[[np.ndarray], Float[np.ndarray, "m c"]]

    def error(self, x: np.ndarray, labels: Int[np.ndarray, " m"]) -> float:
        """The share of examples whose largest output isn't their label's; InputError unless there is one for each."""
        if np.shape(labels) != (len(x),):
            raise InputError(
                f"labels of shape {np.shape(labels)} for {len(x)} examples: one integer for each is "
                "needed"
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
    """Solves (K + ridge I) alpha = y for the Gram matrix K of x, on all devices there are or those of `mesh`.

    Args:
        x: examples [n, ...].
        y: labels, integers [n] from 0, which become one-hot targets; or targets, floating-point [n, c].
        kernel: of `rethinking.kernels.gram`, or your own.
        ridge: added to the diagonal.
        dtype: of the factor. Below float64 the solution is refined with residuals in float64.
        mesh: of one axis.

    Raises:
        InputError: for empty, infinite, ambiguous or mismatched data, for repeated examples without a ridge, for what
            is no `Kernel`, and where memory does not suffice, before any time is spent; if the matrix is not positive
            definite in `dtype` (`NotPositiveDefiniteError`); if refinement does not reach a residual of 1e-8.
    """
    x, targets, labels = check(x, y, ridge)
    with jax.enable_x64(True):
        backend = cholesky.make_backend(len(x), dtype, mesh)
        memory.require(backend, targets.shape[1], x.shape[1])
        _check_kernel(kernel, x, backend)
        return solve(KernelSystem(kernel, x, ridge, backend), targets, labels)


def check(
    x: np.ndarray, y: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(examples [n, d], targets [n, c], labels or None), in float64; raises InputError, see `fit`."""
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise InputError(
            f"{len(x)} examples but {len(y)} labels or targets: there must be one for each"
        )
    if not len(x):
        raise InputError("a system of n = 0 examples: at least 1 is needed")
    if not 0 <= ridge < math.inf:
        raise InputError(f"ridge {ridge}: must be 0 (interpolation) or a positive number")
    x = x.reshape(len(x), -1).astype(np.float64)
    labels = _labels(y)
    if labels is not None and labels.min() < 0:
        raise InputError(
            f"label {labels.min()} of example {labels.argmin()}: labels are integers from 0"
        )
    targets = (
        y.reshape(len(y), -1).astype(np.float64)
        if labels is None
        else one_hot(labels, int(labels.max()) + 1)
    )
    for name, values in (("features", x), ("targets", targets)):
        if not (finite := np.isfinite(values).all(1)).all():
            raise InputError(
                f"the {name} of example {finite.argmin()} are not finite ({(~finite).sum()} such "
                "examples). Remove or mend them."
            )
    if not ridge:
        _refuse_repeated(x, targets)
    return x, targets, labels


def _labels(y: np.ndarray) -> Int[np.ndarray, " n"] | None:
    """`y` as labels, None if it is targets; raises InputError where it could be either."""
    if not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        if y.ndim == 1 and (y == np.rint(y)).all():
            raise InputError(
                "y has whole numbers of a floating-point type: labels, or a target? For labels give "
                "y.astype(int), for a target y.reshape(-1, 1)."
            )
        return None
    if y.size != len(y):
        raise InputError(
            f"y has integers of shape {y.shape}: labels are one integer for each example; targets "
            "[n, c], also one-hot ones, are floating-point: y.astype(float)"
        )
    return y.reshape(-1).astype(np.int64)


def _check_kernel(kernel: Kernel, x: np.ndarray, backend: Backend) -> None:
    """Raises InputError unless `kernel` can be called as `Kernel` says, by the backend."""
    try:
        hash(kernel)
    except TypeError:
        raise InputError(
            f"the kernel {kernel!r} is not hashable, so that its programs cannot be found again: a "
            "function is, and a frozen dataclass"
        ) from None
    few, more = x[:2], x[:3]
    try:
        numpy = isinstance(backend, BlasBackend)
        shape = np.shape(kernel(few, more)) if numpy else jax.eval_shape(kernel, few, more).shape
    except jax.errors.TracerArrayConversionError:
        raise InputError(
            f"the kernel {kernel!r} calls NumPy, and JAX is to compute it: use the namespace of its "
            "arguments, x.__array_namespace__(), as rethinking.kernels.gram does"
        ) from None
    if shape != (len(few), len(more)):
        raise InputError(
            f"the kernel {kernel!r} gives an array of shape {shape} for {len(few)} and {len(more)} "
            f"examples, not ({len(few)}, {len(more)}): k(x_i, z_j) for all pairs is needed"
        )


def one_hot(labels: Int[np.ndarray, " n"], num_classes: int) -> Float[np.ndarray, "n c"]:
    """1 at each example's label, else 0; raises InputError for labels that are no class."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels from {labels.min()} to {labels.max()}: with {num_classes} classes they must be 0 to "
            f"{num_classes - 1}"
        )
    targets = np.zeros((len(labels), num_classes))
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _refuse_repeated(x: np.ndarray, targets: np.ndarray) -> None:
    first = first_occurrences(x)
    pairs = [
        (int(first[later]), int(later)) for later in np.flatnonzero(first != np.arange(len(x)))
    ]
    if not pairs:
        return
    conflicting = [pair for pair in pairs if (targets[pair[0]] != targets[pair[1]]).any()]
    shown = ", ".join(f"{one} and {other}" for one, other in (conflicting or pairs)[:5])
    if conflicting:
        raise InputError(
            f"{len(conflicting)} examples repeat another with a different label ({shown}): no function "
            "interpolates them. Remove them, or set a ridge above 0."
        )
    raise InputError(
        f"{len(pairs)} examples repeat another ({shown}), which makes the matrix singular. Remove the "
        "repetitions, which changes no interpolant, or set a ridge above 0."
    )


def solve(
    system: System,
    targets: Float[np.ndarray, "n c"],
    labels: np.ndarray | None,
    before_panel: Callable[[], None] = lambda: None,
) -> Interpolant:
    """Factors, solves, refines and certifies a system; for its errors see `fit`.

    `before_panel` is called before each panel of the factor, and ends the solve by an exception of its own.
    """
    clock = _Clock()

    def timed_panel(storage, g: int):
        before_panel()
        jax.block_until_ready(storage)
        clock.lap("factor")
        storage = jax.block_until_ready(system.make_panel(storage, g))
        clock.lap("gram")
        return storage

    with clock:
        storage = jax.block_until_ready(system.storage())
        clock.lap("gram")
        factor = cholesky.factor(timed_panel, system.backend, storage)
        jax.block_until_ready(factor.storage)
        clock.lap("factor")
        alpha, residual, refinements = _refine(factor, system.product, targets)
        certificate = _certify(factor, system, alpha, residual, targets, labels, refinements)
        clock.lap("solve")
    _LOG.info("%s", certificate)

    def predict(z: np.ndarray) -> np.ndarray:
        if not len(z := np.asarray(z)):
            raise InputError("0 examples to predict: [m, ...] of m = 1 or more is needed")
        with jax.enable_x64(True):
            return system.predict(alpha, z)

    return Interpolant(alpha, certificate, Seconds(**clock.seconds), predict)


class _Clock:
    """Adds up seconds by what they were spent on, as long as it is entered."""

    def __init__(self):
        self.seconds = dict.fromkeys((field.name for field in dataclasses.fields(Seconds)), 0.0)

    def __enter__(self) -> None:
        self._last = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._note)

    def _note(self, event: str, duration: float, **more: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds["compile"] += duration
            self._last += duration

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now


def _refine(
    factor: Cholesky, product: Callable, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """alpha, targets - A alpha, and the number of steps of iterative refinement that it took.

    Goes on until the residual is below REFINED, or no longer halves. Raises InputError if it is above 1e-8 then.
    """
    alpha = factor.solve(targets).astype(np.float64)
    residual = targets - product(alpha)
    scale = np.linalg.norm(targets) or 1.0
    steps = 0
    while (before := np.linalg.norm(residual) / scale) > REFINED and steps < MOST_REFINEMENTS:
        better = alpha + factor.solve(residual)
        left = targets - product(better)
        if not np.linalg.norm(left) / scale < before:
            break
        alpha, residual, steps = better, left, steps + 1
        _LOG.info("Refinement %d: residual %.1e", steps, np.linalg.norm(residual) / scale)
        if np.linalg.norm(residual) / scale > before / 2:
            break
    reached = np.linalg.norm(residual) / scale
    if not reached <= 1e-8:
        dtype = factor.backend.dtype
        raise InputError(
            f"the {dtype} factor reaches a residual of {reached:.1e} after {steps} refinements, not "
            "1e-8: the matrix is too ill-conditioned for it. Remedies: "
            f"{'' if dtype == np.float64 else 'float64, '}a ridge, or a narrower kernel."
        )
    return alpha, residual, steps


def _certify(
    factor: Cholesky,
    system: System,
    alpha: np.ndarray,
    residual: np.ndarray,
    targets: np.ndarray,
    labels: np.ndarray | None,
    refinements: int,
) -> Certificate:
    fitted = targets - residual - system.ridge * alpha  # K alpha
    squares = system.square_norms(alpha, fitted)
    condition = factor.condition
    size = np.linalg.norm(alpha) * factor.norm + np.linalg.norm(targets)
    return Certificate(
        residual=float(np.linalg.norm(residual) / (np.linalg.norm(targets) or 1.0)),
        largest_residual=float(np.abs(residual).max()),
        train_error=None if labels is None else float(np.mean(fitted.argmax(1) != labels)),
        norm=float(np.sqrt(max(squares.sum(), 0.0))),
        norms=[float(value) for value in np.sqrt(np.maximum(squares, 0.0))],
        condition=condition,
        error=float(condition * np.linalg.norm(residual) / (size or 1.0)),
        refinements=refinements,
        dtype=str(factor.backend.dtype),
    )
