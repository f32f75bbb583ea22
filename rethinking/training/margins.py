"""The norms of a trained network's weights, and the margins by which it classifies.

Bounds on the test error are built from these. Section 2.2 of the paper argues that such bounds do
not explain what its experiments show.
"""

import math
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from rethinking.training import optim

# The quantiles of the margins that `margin_quantiles` gives.
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9)


def norms_and_margins(
    params: Any, logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> dict[str, float | None]:
    """The fields of `norms` and `margin_quantiles`; no fields if the network diverged."""
    if not np.isfinite(logits).all():
        return {}
    return norms(params) | margin_quantiles(logits, labels)


def margins(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Each example's margin: the logit of its label minus the largest other logit.

    The margin of a misclassified example is negative.
    """
    own = logits[np.arange(len(labels)), labels]
    others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits)
    return own - others.max(axis=1)


def margin_quantiles(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """The `QUANTILES` of the margins, as {"margin_0.5": ...}."""
    values = np.quantile(margins(logits, labels), QUANTILES)
    return {
        f"margin_{quantile:g}": float(value)
        for quantile, value in zip(QUANTILES, values, strict=True)
    }


def kernels(params: Any) -> dict[str, Float[np.ndarray, "inputs outputs"]]:
    """The weight matrices of dense layers and convolutions, by their path in `params`.

    They are the parameters on which weight decay acts: see `optim.decayed`. A convolution's matrix
    is [height * width * channels, outputs].
    """
    matrices = {}
    chosen = jax.tree.leaves(optim.decayed(params))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), is_weight in zip(leaves, chosen, strict=True):
        if is_weight:
            matrix = np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
            matrices[jax.tree_util.keystr(path)] = matrix
    return matrices


def weight_norm(params: Any) -> float:
    """The l2 norm of all `kernels` together. Weight decay penalizes it; biases do not count."""
    return math.sqrt(sum(float(np.square(kernel).sum()) for kernel in kernels(params).values()))


def spectral_norms(params: Any) -> dict[str, float]:
    """The largest singular value of each of `kernels`."""
    return {
        path: float(scipy.linalg.svdvals(kernel)[0]) for path, kernel in kernels(params).items()
    }


def norms(params: Any) -> dict[str, float | None]:
    """The fields "weight_norm" and "spectral_product"; no fields if the network diverged.

    Both are None for a network without `kernels`, since there is nothing to measure.

    "spectral_product" is the product of the layers' spectral norms. Bounds such as that of
    Bartlett, Foster and Telgarsky (2017) divide margins by it.
    """
    params = jax.device_get(params)
    if not kernels(params):
        return {"weight_norm": None, "spectral_product": None}
    for kernel in kernels(params).values():
        if not np.isfinite(kernel).all():
            return {}
    return {
        "weight_norm": weight_norm(params),
        "spectral_product": math.prod(spectral_norms(params).values()),
    }
