"""Table 3: a linear model interpolates the whole training set by one solve (section 5)."""

import functools
import logging
import math
import time
from typing import Any

from ml_collections import ConfigDict

from rethinking import distributed, runs
from rethinking.config import COMMON, NUM_TEST
from rethinking.errors import require
from rethinking.fields import Field, Fields

_LOG = logging.getLogger(__name__)

FIELDS: Fields = COMMON | {
    "kind": COMMON["kind"].replace(default="kernels"),
    "seed": COMMON["seed"].replace(
        doc="seed of the subset, the filters, the random centers and the held-out examples"
    ),
    "dtype": Field(
        "float64",
        "dtype of the factor; float32 is refined with residuals in float64",
        choices=("float32", "float64"),
    ),
    "ridge": Field(
        0.0,
        "added to the matrix's diagonal, in units of that diagonal's mean; 0: interpolation",
        minimum=0,
        maximum=1e10,
    ),
    "choose_ridge": Field(
        False, "choose the ridge by the error on held-out training examples, and ignore `ridge`"
    ),
    "random_centers": Field(
        0,
        "number of centers per example, at random points; 0: the examples are the centers",
        minimum=0,
        maximum=1000,
    ),
    "random_test_labels": Field(
        False, "add the test images to the training set, with random labels"
    ),
    "kernel.name": Field(
        "gaussian", "the kernel", choices=("gaussian", "laplacian", "linear", "polynomial")
    ),
    "kernel.bandwidth": Field(
        5.0,
        'bandwidth of "gaussian" and "laplacian", in units of the features',
        minimum=1e-10,
        maximum=1e10,
    ),
    "kernel.degree": Field(2, 'degree of "polynomial"', minimum=1, maximum=100),
    "kernel.offset": Field(1.0, 'offset of "polynomial"', minimum=0, maximum=1e10),
    "features.name": Field(
        "pixels",
        "features of the images, divided by 255",
        choices=("pixels", "gabor", "random_conv"),
    ),
    "features.num_filters": Field(
        32_000, 'number of filters of "random_conv"', minimum=1, maximum=100_000
    ),
    "features.filters_per_block": Field(
        128,
        'of "random_conv": number of filters whose features exist at once',
        minimum=1,
        maximum=100_000,
    ),
    "data.name": COMMON["data.name"].replace(default="mnist"),
    "data.num_test": NUM_TEST,
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    random_conv = config.features.name == "random_conv"
    require(
        not random_conv or config.kernel.name == "linear",
        "config.features.name=random_conv: other kernels need all features at once, and these do "
        "not fit in memory. Set config.kernel.name=linear.",
    )
    require(
        not config.random_centers or not (random_conv or config.ridge or config.choose_ridge),
        f"config.random_centers={config.random_centers}: it needs other features than random_conv, "
        "and no ridge. Set it to 0, or change the other fields.",
    )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Solves the system that `config` describes; returns the contents of result.json.

    Returns None if `deadline` (of time.monotonic()) or a noticed SIGTERM came first. The same call
    then starts again. Raises InputError for settings, data, devices or memory that cannot work,
    before any time is spent; and for a system that cannot be solved.
    """
    import jax

    from rethinking.experiments import kernel_system
    from rethinking.kernels import interpolate

    start = time.monotonic()
    look = functools.partial(_look_at_the_clock, deadline)
    backend = kernel_system.make_backend(config)
    data = kernel_system.load(config)
    try:
        look()
        with jax.enable_x64(True):
            system = kernel_system.build(config, data, backend, look)
            ridge, chosen = kernel_system.choose_ridge(config, system, data)
            _LOG.info("Solving for %d examples, ridge %g.", len(data.train), chosen["ridge"])
            solution = interpolate.solve(system, data.targets, data.labels, ridge, look)
            test_error = solution.error(data.test, data.test_labels)
    except _OutOfTime:
        _LOG.info("Out of time; the same command starts again.")
        return None
    return {
        "status": "complete",
        "seconds": time.monotonic() - start,
        "num_examples": len(data.train),
        "test_error": test_error,
        **chosen,
        **kernel_system.cost_and_accuracy(solution),
    }


class _OutOfTime(Exception):
    """The deadline, or SIGTERM, came during a solve."""


def _look_at_the_clock(deadline: float) -> None:
    if distributed.must_stop(deadline):
        raise _OutOfTime
