"""Section 5: three solutions of one linear system, how they generalize, and which one SGD finds.

The curvature of the risk cannot distinguish them: its Hessian is the same at all three.
"""

import logging
import math
import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from ml_collections import ConfigDict

from rethinking import distributed, randomize, runs
from rethinking.config import COMMON, NUM_TEST, refuse_without_effect
from rethinking.config.fields import LARGEST, Field, Fields
from rethinking.errors import require

_LOG = logging.getLogger(__name__)
LEGS = 10  # equal parts of SGD's steps, each of which ends with a measurement
# The most work between two checks of the deadline: numbers that SGD updates, entries of a Hessian.
MOST_UPDATES, MOST_ENTRIES = 10**9, 10**7
COPIES = 4  # of the features, and Gram matrices, that exist at once

FIELDS: Fields = COMMON | {
    "kind": COMMON["kind"].replace(default="linear"),
    "seed": COMMON["seed"].replace(
        doc="seed of the subset, the features, the random start and the order of SGD"
    ),
    "num_devices": COMMON["num_devices"].replace(
        default=1, minimum=1, maximum=1, below=None, doc="number of devices: one"
    ),
    "steps": Field(
        200_000,
        "number of SGD steps from each of the two starts, rounded down to a multiple of ten",
        minimum=LEGS,
        below=LARGEST,
    ),
    "features.name": Field(
        "pixels",
        "features of the examples: pixels divided by 255, or standardized vectors; or random "
        'Fourier features of these ("fourier")',
        choices=("pixels", "fourier"),
    ),
    "features.num_frequencies": Field(
        1000, 'of "fourier": half the number of features', minimum=1, maximum=10_000
    ),
    "features.bandwidth": Field(
        5.0,
        'of "fourier": bandwidth of the Gaussian kernel that they approximate',
        minimum=1e-10,
        maximum=1e10,
    ),
    "data.name": COMMON["data.name"].replace(default="mnist"),
    "data.num_test": NUM_TEST,
}


class Examples(NamedTuple):
    """The features of some examples, and their classes as one-hot targets."""

    features: Float64[np.ndarray, "n d"]
    targets: Float64[np.ndarray, "n c"]

    def error(self, weights: Float64[np.ndarray, "d c"]) -> float:
        """The fraction of examples for which another class has the largest output."""
        predicted = (self.features @ weights).argmax(axis=1)
        return float((predicted != self.targets.argmax(axis=1)).mean())


def check(config: ConfigDict) -> None:
    """Raises InputError for settings that have no effect."""
    if config.features.name == "pixels":
        ignored = ["features.num_frequencies", "features.bandwidth"]
        refuse_without_effect(config, FIELDS, ignored, "config.features.name=pixels")


def check_sizes(config: ConfigDict) -> None:
    """Raises InputError for tokens, more examples than features, or too little memory.

    It reads only the data set's description.
    """
    from rethinking.experiments import data_set
    from rethinking.kernels import memory

    data, features = config.data, config.features
    info = data_set.describe(config)
    data_set.refuse_tokens(config, info, "config.kind=linear")
    n = (data.num_train or info.num_train) + (data.num_test or info.num_test)
    num_features = math.prod(info.example_shape)
    if features.name == "fourier":
        num_features = 2 * features.num_frequencies
    require(
        n <= num_features,
        f"{n:,} training and test examples but {num_features:,} features: not all labels can be "
        "fitted. Choose a smaller config.data.num_train or config.data.num_test, or, with "
        "config.features.name=fourier, a larger config.features.num_frequencies.",
    )
    memory.require_on_host(
        f"the system of {n:,} training and test examples with {num_features:,} features",
        COPIES * 8.0 * n * (n + num_features),
        "a smaller config.data.num_train, config.data.num_test or config.features.num_frequencies",
    )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Computes three solutions and runs SGD; returns the fields of result.json.

    - `solutions`: `name`, `norm`, `train_error`, `test_error` of each of `linear.interpolants`.
    - `sgd`: the lines of `_follow_sgd`, each with the `start`, "zero" or "random".
    - `contraction`: see `linear.contraction`.
    - `hessian_difference`, `hessian_difference_at_zero`, `null_dimension`: see `_curvature`.

    Returns None if `deadline` (of time.monotonic()) comes first; the same call then starts again.
    Raises InputError for settings, data or a workdir that cannot work, before any time is spent.
    """
    from rethinking import sharding
    from rethinking.theory import linear

    begun = time.monotonic()
    sharding.device_mesh(config.num_devices)
    check_sizes(config)
    rng = np.random.default_rng(config.seed)
    train, test, eval_split = _examples(config, rng)
    num_features = train.features.shape[1]
    start = rng.standard_normal((num_features, train.targets.shape[1]))
    try:
        distributed.stop_if_late(deadline)
        found = linear.interpolants(train, test, start, rng)
        distributed.stop_if_late(deadline)
        contraction = linear.contraction(train.features)
        measured = {
            "num_examples": len(train.features),
            "num_test": len(test.features),
            "eval_split": eval_split,
            "num_features": num_features,
            "solutions": [{"name": name} | _describe(found[name], train, test) for name in found],
            "contraction": contraction,
            **_curvature(train, found, deadline),
            "sgd": [],
        }
        for name, first, limit in (
            ("zero", np.zeros_like(start), found["minimum_norm"]),
            ("random", start, found["random_start"]),
        ):
            for line in _follow_sgd(config, train, test, first, limit, contraction, deadline):
                measured["sgd"].append({"start": name} | line)
    except distributed.OutOfTime:
        _LOG.info("Out of time. The same command starts again.")
        return None
    return {"status": "complete", "seconds": time.monotonic() - begun} | measured


def _examples(config: ConfigDict, rng: np.random.Generator) -> tuple[Examples, Examples, str]:
    """The training examples with randomized labels, the test examples, and the latter's split."""
    from rethinking.experiments import data_set
    from rethinking.theory import linear

    features = config.features
    loaded = data_set.standardized(data_set.load(config))
    train, test = loaded.train, loaded.test
    points = np.concatenate([data_set.features(split.images) for split in (train, test)])
    if features.name == "fourier":
        points = linear.fourier_features(points, features.num_frequencies, features.bandwidth, rng)
    labels = randomize.corrupt_labels(
        train.labels,
        train.indices,
        loaded.num_classes,
        config.randomize.labels,
        config.randomize.seed,
    )
    one_hot = np.eye(loaded.num_classes)
    cut = len(labels)
    fitted = Examples(points[:cut], one_hot[labels])
    return fitted, Examples(points[cut:], one_hot[test.labels]), loaded.eval_split


def _describe(weights: np.ndarray, train: Examples, test: Examples) -> dict[str, float]:
    """The l2 norm of the weights, and their errors."""
    return {
        "norm": float(np.linalg.norm(weights)),
        "train_error": train.error(weights),
        "test_error": test.error(weights),
    }


def _curvature(
    train: Examples, solutions: dict[str, Float64[np.ndarray, "d c"]], deadline: float
) -> dict[str, Any]:
    """How much the Hessian of the risk differs between solutions, and its null dimension.

    The loss is the logistic loss of the first class's output. (The squared loss would say nothing:
    its Hessian is the same at all w.) `hessian_difference` is the largest difference of an entry
    between two solutions, relative to the largest entry. `hessian_difference_at_zero` is the same
    between a solution and w = 0, which is not a solution.

    Raises OutOfTime if the deadline comes first.
    """
    from rethinking.theory import linear

    def second_derivatives(weights: Float64[np.ndarray, "d c"]) -> Float64[np.ndarray, " n"]:
        return linear.second_derivatives(
            train.features, train.targets[:, 0], weights[:, 0], linear.logistic_loss
        )

    def largest_entry(beta: Float64[np.ndarray, " n"]) -> float:
        """The largest absolute value in the Hessian with these second derivatives."""
        d = train.features.shape[1]
        largest, height = 0.0, max(1, MOST_ENTRIES // d)
        for row in range(0, d, height):
            distributed.stop_if_late(deadline)
            rows = linear.hessian_rows(train.features, beta, slice(row, row + height))
            largest = max(largest, float(np.abs(rows).max()))
        return largest

    smallest = solutions["minimum_norm"]
    reference = second_derivatives(smallest)
    scale = largest_entry(reference)
    # The Hessian is linear in the second derivatives, so a difference of two is one of these.
    differences = [
        largest_entry(second_derivatives(weights) - reference) / scale
        for weights in solutions.values()
    ]
    at_zero = largest_entry(second_derivatives(np.zeros_like(smallest)) - reference) / scale
    distributed.stop_if_late(deadline)
    return {
        "hessian_difference": max(differences),
        "hessian_difference_at_zero": at_zero,
        "null_dimension": linear.null_dimension(train.features, reference),
    }


def _follow_sgd(
    config: ConfigDict,
    train: Examples,
    test: Examples,
    start: Float64[np.ndarray, "d c"],
    limit: Float64[np.ndarray, "d c"],
    contraction: float,
    deadline: float,
) -> list[dict[str, float | int]]:
    """Runs SGD from `start`; returns a line for the start and a line after each leg.

    - `step`: the number of steps so far.
    - `distance`: from the weights to `limit`, relative to the distance of the start.
    - `predicted`: the bound on it that follows from `contraction`, in root mean square.
    - `norm`, `train_error`, `test_error` of the weights.

    Raises OutOfTime if the deadline comes first.
    """
    from rethinking.theory import linear

    leg = config.steps // LEGS
    most = max(1, MOST_UPDATES // start.size)
    weights, lines = start, []
    for step in range(0, (LEGS + 1) * leg, leg):
        distributed.stop_if_late(deadline)
        for first in range(max(0, step - leg), step, most):
            distributed.stop_if_late(deadline)
            weights = linear.sgd(*train, weights, min(most, step - first), config.seed, first)
        distance = np.linalg.norm(weights - limit) / np.linalg.norm(start - limit)
        line = {"step": step, "distance": float(distance), "predicted": contraction ** (step / 2)}
        lines.append(line | _describe(weights, train, test))
    _LOG.info("SGD is at distance %.3g of its limit after %d steps.", distance, step)
    return lines
