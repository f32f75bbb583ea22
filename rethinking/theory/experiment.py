"""Section 4 on real data: a network is built that reproduces the labels of a whole training set, and run on it."""

import logging
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rethinking import randomize, runs
from rethinking.data import arrays
from rethinking.theory import expressivity

_LOG = logging.getLogger(__name__)


def run(config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf) -> dict[str, Any] | None:
    """Builds the network that `config` describes, evaluates it; returns the contents of result.json.

    `train_error` is the fraction of images whose label the network misses: the nearest whole number to its output, or
    with one-hot targets the largest output; `max_residual` is the largest difference of an output from its target.
    Both are of the network in float64; `train_error_float32` and `max_residual_float32` are of the same in float32.

    Returns None if `deadline` (of time.time()) came first; the same call then begins anew.
    Raises ConfigError for settings, data or a workdir that cannot work, before any time is spent.
    """
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
    _LOG.info("Built %s: %d weights in %.1f s.", config.row, memorizer.num_weights, measured["build_seconds"])
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
        _LOG.info("%s: error %g, largest residual %.3g", dtype, *(measured[f"{name}{suffix}"] for name in (
            "train_error", "max_residual")))
    provenance = runs.provenance(config) | {"status": "complete", "seconds": time.time() - start}
    return run_directory.finish(provenance | measured)


def _sample(config: ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training images as points [n, d] of pixel values 0 to 255, their (random) labels, and the targets [n, c]."""
    data = config.data
    train = arrays.load(data.name, data.data_dir or None, data.num_train, config.seed)
    labels = randomize.corrupt_labels(
        train.train.labels, train.train.indices, train.num_classes, config.randomize.labels, config.randomize.seed
    )
    targets = np.eye(train.num_classes)[labels] if config.one_hot else labels[:, None].astype(np.float64)
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
