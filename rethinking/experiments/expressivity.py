"""Section 4 on real data: a network is built that reproduces the labels of a whole training set, and run on it."""

import logging
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real
from ml_collections import ConfigDict

from rethinking import randomize, runs
from rethinking.config import COMMON, Field, Fields

_LOG = logging.getLogger(__name__)
NUM_DRAWN = 8  # images whose network is drawn

FIELDS: Fields = COMMON | {
    "kind": COMMON["kind"].replace(default="expressivity"),
    "seed": COMMON["seed"].replace(doc="seed of the subset of the data, and of the projection"),
    "num_devices": COMMON["num_devices"].replace(
        default=1, doc="number of devices; one is all that is used"
    ),
    "depth": Field(2, "2: Theorem 1; more: Corollary 1", minimum=2, below=2**31),
    "one_hot": Field(False, "targets are a vector for each class instead of the label as a number"),
    "data.name": COMMON["data.name"].replace(default="cifar10"),
    "randomize.labels": COMMON["randomize.labels"].replace(default=1.0),
}


def check(config: ConfigDict) -> None:
    """Every combination of allowed values goes together."""


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Builds the network that `config` describes, evaluates it; returns the contents of result.json.

    `train_error` is the fraction of images whose label the network misses: the nearest whole number to its output, or
    with one-hot targets the largest output; `max_residual` is the largest difference of an output from its target.
    Both are of the network in float64; `train_error_float32` and `max_residual_float32` are of the same in float32.
    Two-layer networks of one output have a `drawing`, too, of that for the first images: see `draw`.

    Returns None if `deadline` (of time.time()) came first; the same call then begins anew.
    Raises InputError for settings, data or a workdir that cannot work, before any time is spent.
    """
    from rethinking.theory import expressivity

    start = time.time()
    points, labels, targets = _sample(config)
    if time.time() >= deadline:
        return None
    built_from = time.time()
    memorizer = expressivity.memorize(points, targets, config.depth, config.seed)
    measured = {
        "num_points": len(points),
        "num_weights": memorizer.num_weights,
        "depth": memorizer.module.depth,
        "width": memorizer.module.width,
        "smallest_eigenvalue": memorizer.smallest_eigenvalue,
        "build_seconds": time.time() - built_from,
    }
    _LOG.info(
        "Built %s: %d weights in %.1f s.",
        config.row,
        memorizer.num_weights,
        measured["build_seconds"],
    )
    for dtype, suffix in (("float64", ""), ("float32", "_float32")):
        evaluated_from = time.time()
        outputs = _until(deadline, expressivity.evaluate(memorizer, points, dtype))
        if outputs is None:
            _LOG.info("Out of time; the same command begins anew.")
            return None
        measured |= {
            f"train_error{suffix}": _error(outputs, labels),
            f"max_residual{suffix}": float(np.abs(outputs - targets).max()),
            f"evaluate_seconds{suffix}": time.time() - evaluated_from,
        }
        _LOG.info(
            "%s: error %g, largest residual %.3g",
            dtype,
            *(measured[f"{name}{suffix}"] for name in ("train_error", "max_residual")),
        )
    if config.depth == 2 and not config.one_hot:
        measured["drawing"] = draw(points[:NUM_DRAWN], targets[:NUM_DRAWN], config.seed)
    return {"status": "complete", "seconds": time.time() - start} | measured


def draw(
    points: Real[np.ndarray, "n d"], targets: Real[np.ndarray, "n 1"], seed: int
) -> list[dict[str, Any]]:
    """Theorem 1's network for a few points, as a function of the projection x = <a, z>, which is linear in between.

    At every threshold and every point, from left to right: `x`, less the first threshold; `output`, the network's; and
    `units`, each hidden unit's max(x - b_j, 0). `point` says which of the two it is, so that the `units` of the points
    are the rows of Lemma 1's matrix.
    """
    from rethinking.theory import expressivity

    params = expressivity.memorize(points, targets, seed=seed).params
    projected, thresholds = points @ params["a"], params["b"]
    x = np.concatenate([projected, thresholds])
    units = np.maximum(x[:, None] - thresholds, 0)
    outputs = units @ params["w"]
    return [
        {
            "x": float(x[i] - thresholds[0]),
            "point": bool(i < len(projected)),
            "output": float(outputs[i, 0]),
            "units": units[i].tolist(),
        }
        for i in np.argsort(x)
    ]


def _sample(config: ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training images as points [n, d] of pixel values 0 to 255, their (random) labels, and the targets [n, c]."""
    from rethinking.data import arrays

    data = config.data
    train = arrays.load(data.name, data.data_dir or None, data.num_train, config.seed)
    labels = randomize.corrupt_labels(
        train.train.labels,
        train.train.indices,
        train.num_classes,
        config.randomize.labels,
        config.randomize.seed,
    )
    targets = (
        np.eye(train.num_classes)[labels] if config.one_hot else labels[:, None].astype(np.float64)
    )
    return train.train.images.reshape(len(labels), -1), labels, targets


def _until(deadline: float, batches: Iterable[np.ndarray]) -> np.ndarray | None:
    """All batches as one array; None if the deadline comes first."""
    done = []
    for batch in batches:
        done.append(batch)
        if time.time() >= deadline:
            return None
    return np.concatenate(done)


def _error(outputs: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    predicted = outputs.argmax(axis=1) if outputs.shape[1] > 1 else np.rint(outputs[:, 0])
    return float((predicted != labels).mean())
