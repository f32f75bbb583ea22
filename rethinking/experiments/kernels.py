"""Table 3: a linear model interpolates a whole training set by one solve (section 5)."""

import math
from typing import Any

from ml_collections import ConfigDict

from rethinking import runs
from rethinking.config import COMMON, LARGEST, NUM_TEST, Field, Fields
from rethinking.errors import require

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
    ),
    "choose_ridge": Field(
        False, "choose the ridge by the error on held-out training examples, and ignore `ridge`"
    ),
    "random_centers": Field(
        0,
        "number of centers per example, at random points; 0: the examples are the centers",
        minimum=0,
        below=LARGEST,
    ),
    "random_test_labels": Field(
        False, "add the test images to the training set, with random labels"
    ),
    "kernel.name": Field(
        "gaussian", "the kernel", choices=("gaussian", "laplacian", "linear", "polynomial")
    ),
    "kernel.bandwidth": Field(
        5.0, 'of "gaussian" and "laplacian", in units of the features', above=0
    ),
    "kernel.degree": Field(2, 'of "polynomial"', minimum=1, below=LARGEST),
    "kernel.offset": Field(1.0, 'of "polynomial"', minimum=0),
    "features.name": Field(
        "pixels",
        "features of the images, divided by 255",
        choices=("pixels", "gabor", "random_conv"),
    ),
    "features.num_filters": Field(
        32_000, 'number of filters of "random_conv"', minimum=1, below=LARGEST
    ),
    "features.filters_per_block": Field(
        128,
        'of "random_conv": number of filters whose features exist at once',
        minimum=1,
        below=LARGEST,
    ),
    "data.name": COMMON["data.name"].replace(default="mnist"),
    "data.num_test": NUM_TEST,
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    streamed = config.features.name == "random_conv"
    require(
        not streamed or config.kernel.name == "linear",
        "config.features.name=random_conv: its features never exist at once. Set config.kernel.name=linear.",
    )
    require(
        not config.random_centers or not (streamed or config.ridge or config.choose_ridge),
        "config.random_centers is for a kernel on features that exist at once, without a ridge. Set it to 0, or change "
        "the others.",
    )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Solves the system that `config` describes; returns the fields of result.json, or None if it had to stop."""
    from rethinking.experiments import kernel_system

    return kernel_system.run(config, run_directory, deadline)
