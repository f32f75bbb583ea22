"""Section 4 on real data: builds a network that reproduces the labels of a whole training set."""

import logging
import math
import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real
from ml_collections import ConfigDict

from rethinking import randomize, runs
from rethinking.config import COMMON
from rethinking.config.fields import Field, Fields

_LOG = logging.getLogger(__name__)
NUM_DRAWN = 8  # the first examples, for which a figure shows the network

FIELDS: Fields = COMMON | {
    "kind": COMMON["kind"].replace(default="expressivity"),
    "seed": COMMON["seed"].replace(doc="seed of the subset of the data, and of the projection"),
    "num_devices": COMMON["num_devices"].replace(
        default=1, minimum=1, maximum=1, below=None, doc="number of devices: one"
    ),
    "depth": Field(
        2, "number of layers; 2: as in Theorem 1; more: Corollary 1", minimum=2, maximum=200
    ),
    "one_hot": Field(False, "targets are one-hot vectors instead of the labels as numbers"),
    "data.name": COMMON["data.name"].replace(default="cifar10"),
    "randomize.labels": COMMON["randomize.labels"].replace(default=1.0),
}


def check(config: ConfigDict) -> None:
    """Accepts every config: all combinations of allowed values can work."""


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Builds the network that `config` describes and evaluates it; returns the result's fields.

    - `train_error`: the fraction of examples for which the network predicts another label. The
      prediction is the whole number nearest to the output, or the largest of several outputs.
    - `max_residual`: the largest difference between an output and its target.
    - `train_error_float32`, `max_residual_float32`: the same for the network in float32; the first
      two are for float64.
    - `drawing`: `draw` for the first examples, for networks of two layers and one output.

    Returns None if `deadline` (of time.monotonic()) comes first; the same call then starts again.
    Raises InputError for settings, data or a workdir that cannot work, before any time is spent.
    """
    from rethinking import sharding
    from rethinking.theory import expressivity

    start = time.monotonic()
    sharding.device_mesh(config.num_devices)
    points, labels, targets = _sample(config)
    if time.monotonic() >= deadline:
        return None
    built_from = time.monotonic()
    memorizer = expressivity.memorize(points, targets, config.depth, config.seed)
    measured = {
        "num_points": len(points),
        "num_weights": memorizer.num_weights,
        "depth": memorizer.module.depth,
        "width": memorizer.module.width,
        "smallest_eigenvalue": memorizer.smallest_eigenvalue,
        "build_seconds": time.monotonic() - built_from,
    }
    _LOG.info("Built %s: %d weights.", config.row, memorizer.num_weights)
    for dtype, suffix in (("float64", ""), ("float32", "_float32")):
        evaluated = _evaluate(memorizer, points, labels, targets, dtype, deadline)
        if evaluated is None:
            _LOG.info("Out of time. The same command starts again.")
            return None
        measured |= {f"{name}{suffix}": value for name, value in evaluated.items()}
    if config.depth == 2 and not config.one_hot:
        measured["drawing"] = draw(points[:NUM_DRAWN], targets[:NUM_DRAWN], config.seed)
    return {"status": "complete", "seconds": time.monotonic() - start} | measured


def draw(
    points: Real[np.ndarray, "n d"], targets: Real[np.ndarray, "n 1"], seed: int
) -> list[dict[str, Any]]:
    """The network of Theorem 1 for a few points, as a function of the projection x = <a, z>.

    The list has a line for every threshold and every point, from left to right. The function is
    linear between them. A line has

    - `x`: the projection minus the first threshold;
    - `point`: whether this is a point rather than a threshold;
    - `output`: the network's output;
    - `units`: max(x - b_j, 0) of each hidden unit. For the points these are the rows of the matrix
      in Lemma 1.
    """
    from rethinking.theory import expressivity

    params = expressivity.memorize(points, targets, seed=seed).params
    projected, thresholds = points @ params["a"], params["b"]
    x = np.concatenate([projected, thresholds])
    units = np.maximum(x[:, None] - thresholds, 0)
    outputs = units @ params["w"]
    lines = []
    for i in np.argsort(x):
        line = {
            "x": float(x[i] - thresholds[0]),
            "point": bool(i < len(projected)),
            "output": float(outputs[i, 0]),
            "units": units[i].tolist(),
        }
        lines.append(line)
    return lines


def _sample(config: ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training examples as points [n, d], their labels, and targets [n, c].

    The points are pixels of 0 to 255, or standardized vectors.

    Labels are random as `config.randomize` says.
    """
    from rethinking.experiments import data_set

    data_set.refuse_tokens(config, data_set.describe(config), "config.kind=expressivity")
    loaded = data_set.standardized(data_set.load(config))
    labels = randomize.corrupt_labels(
        loaded.train.labels,
        loaded.train.indices,
        loaded.num_classes,
        config.randomize.labels,
        config.randomize.seed,
    )
    if config.one_hot:
        targets = np.eye(loaded.num_classes)[labels]
    else:
        targets = labels[:, None].astype(np.float64)
    return loaded.train.images.reshape(len(labels), -1), labels, targets


def _evaluate(
    memorizer: Any,
    points: Real[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    targets: Float[np.ndarray, "n c"],
    dtype: str,
    deadline: float,
) -> dict[str, float] | None:
    """The error, the largest residual and the time of an evaluation; None if the deadline comes."""
    from rethinking.theory import expressivity

    start = time.monotonic()
    batches = []
    for batch in expressivity.evaluate(memorizer, points, dtype):
        batches.append(batch)
        if time.monotonic() >= deadline:
            return None
    outputs = np.concatenate(batches)
    error = _error(outputs, labels)
    residual = float(np.abs(outputs - targets).max())
    _LOG.info("%s: error %g, largest residual %.3g", dtype, error, residual)
    return {
        "train_error": error,
        "max_residual": residual,
        "evaluate_seconds": time.monotonic() - start,
    }


def _error(outputs: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The fraction of examples whose predicted label is wrong."""
    predicted = outputs.argmax(axis=1) if outputs.shape[1] > 1 else np.rint(outputs[:, 0])
    return float((predicted != labels).mean())
