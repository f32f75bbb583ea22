"""What else is said of a trained network: the norms of its weights, and the margins by which it classifies.

Bounds on the test error are built from these; the paper's section 2.2 is on why none of them explains what it shows.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9)


def measures(
    params: Mapping[str, Any], logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """`norms` and `margin_quantiles`, as fields of a record; none if the network diverged."""
    return norms(params) | margin_quantiles(logits, labels) if np.isfinite(logits).all() else {}


def margins(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Each example's margin: the logit of its label less the largest other one; negative where it is misclassified."""
    own = logits[np.arange(len(labels)), labels]
    others = np.where(np.arange(logits.shape[1]) == labels[:, None], -np.inf, logits)
    return own - others.max(axis=1)


def margin_quantiles(
    logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """`QUANTILES` of the margins, as {"margin_0.5": ...}."""
    values = np.quantile(margins(logits, labels), QUANTILES)
    return {
        f"margin_{quantile:g}": float(value)
        for quantile, value in zip(QUANTILES, values, strict=True)
    }


def kernels(params: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "inputs outputs"]]:
    """The weights of dense layers and convolutions by path, the latter's as [height * width * channels, outputs]."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
        for path, leaf in leaves
        if path[-1].key == "kernel"
    }


def weight_norm(params: Mapping[str, Any]) -> float:
    """The l2 norm of all kernels together: what weight decay penalizes, without biases."""
    return math.sqrt(sum(float(np.square(kernel).sum()) for kernel in kernels(params).values()))


def spectral_norms(params: Mapping[str, Any]) -> dict[str, float]:
    """The largest singular value of each of `kernels`."""
    return {
        path: float(scipy.linalg.svdvals(kernel)[0]) for path, kernel in kernels(params).items()
    }


def norms(params: Mapping[str, Any]) -> dict[str, float]:
    """ "weight_norm" and "spectral_product", the product of the layers' spectral norms, which margins are divided by
    in bounds such as that of Bartlett, Foster and Telgarsky (2017); nothing if the network diverged."""
    params = jax.device_get(params)
    if not all(np.isfinite(kernel).all() for kernel in kernels(params).values()):
        return {}
    return {
        "weight_norm": weight_norm(params),
        "spectral_product": math.prod(spectral_norms(params).values()),
    }
