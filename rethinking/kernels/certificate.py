"""How accurate a solution is, measured after it was computed."""

import dataclasses
import math

import numpy as np

from rethinking.kernels.cholesky import Cholesky, Solution
from rethinking.kernels.systems import System

# Where K alpha is this much smaller than the targets, because the ridge is very large, differences
# from the targets lose its digits.
CANCELLED = 1e-4


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The accuracy of a solution alpha of (K + ridge I) alpha = y. Residuals are in float64.

    Attributes:
        residual: ||(K + ridge I) alpha - y|| / ||y|| in Frobenius norms.
        largest_residual: the largest entry of (K + ridge I) alpha - y.
        train_error: the share of examples whose largest output is not the one of their label; None
            without labels.
        norm: the norm of the function in the kernel's space: the root of the sum of alpha^T K alpha
            over the outputs.
        norms: of each output.
        condition: an estimate of the matrix's condition number in the 1-norm.
        error: an estimate of ||alpha - exact|| / ||exact||: the condition number times the backward
            error.
        refinements: the number of steps of iterative refinement.
        dtype: of the factor.
    """

    residual: float
    largest_residual: float
    train_error: float | None
    norm: float
    norms: list[float]
    condition: float
    error: float
    refinements: int
    dtype: str

    def __str__(self) -> str:
        digits = max(0, math.floor(-math.log10(max(self.error, 1e-17))))
        holds = "no digit of alpha is certain"
        if digits:
            holds = f"about {digits} digits of alpha are correct"
        return (
            f"residual {self.residual:.1e}, condition {self.condition:.1e}, norm {self.norm:.4g}; "
            f"{holds} ({self.dtype} factor, {self.refinements} refinements)"
        )


def certify(
    factor: Cholesky,
    system: System,
    ridge: float,
    solution: Solution,
    targets: np.ndarray,
    labels: np.ndarray | None,
) -> Certificate:
    """The certificate of a solution of (K + ridge I) alpha = targets."""
    alpha, residual, refinements = solution
    fitted = targets - residual - ridge * alpha  # K alpha
    if np.linalg.norm(fitted) < CANCELLED * np.linalg.norm(targets):
        fitted = system.product(alpha, 0.0)
    train_error = None
    if labels is not None:
        train_error = float(np.mean(fitted.argmax(1) != labels))
    squares = system.square_norms(alpha, fitted)
    condition = factor.condition
    size = np.linalg.norm(alpha) * factor.norm + np.linalg.norm(targets)
    return Certificate(
        residual=float(np.linalg.norm(residual) / (np.linalg.norm(targets) or 1.0)),
        largest_residual=float(np.abs(residual).max()),
        train_error=train_error,
        norm=float(np.sqrt(max(squares.sum(), 0.0))),
        norms=[float(value) for value in np.sqrt(np.maximum(squares, 0.0))],
        condition=condition,
        error=float(condition * np.linalg.norm(residual) / (size or 1.0)),
        refinements=refinements,
        dtype=str(factor.backend.dtype),
    )
