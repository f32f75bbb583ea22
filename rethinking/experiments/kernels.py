"""Table 3: a linear model interpolates the whole training set by one solve (section 5)."""

import logging
import math
import time
from typing import Any

from ml_collections import ConfigDict

from rethinking import distributed, runs
from rethinking.config import COMMON, NUM_TEST, get
from rethinking.config.fields import Field, Fields
from rethinking.errors import InputError, require
from rethinking.kernels import gram

_LOG = logging.getLogger(__name__)
# The bandwidths of Table 3's rows, by data set or features.
BANDWIDTHS = {"mnist": 5.0, "cifar10": 7.0, "gabor": 0.5}

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
        False, "choose the ridge by the error on held-out training examples; `ridge` must be 0"
    ),
    "random_centers": Field(
        0,
        "number of centers per example, at random points; 0: the examples are the centers",
        minimum=0,
        maximum=1000,
    ),
    "random_test_labels": Field(
        False, "add the test examples to the training set, with random labels"
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
        'features of the images, divided by 255; of vectors: "pixels", their standardized features',
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
    "features.product_dtype": Field(
        "float64",
        'of "random_conv": dtype in which the features of a block are multiplied, at most that of '
        "the factor; blocks are summed in the latter",
        choices=("float32", "float64"),
    ),
    "data.name": COMMON["data.name"].replace(default="mnist"),
    "data.num_test": NUM_TEST,
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together, or that have no effect."""
    random_conv = config.features.name == "random_conv"
    require(
        not random_conv or config.kernel.name == "linear",
        "config.features.name=random_conv: other kernels need all features at once, and these do "
        "not fit in memory. Set config.kernel.name=linear.",
    )
    require(
        not config.random_centers or not (random_conv or config.ridge or config.choose_ridge),
        f"config.random_centers={config.random_centers} works neither with a ridge nor with "
        "config.features.name=random_conv. Set it to 0, or change those fields.",
    )
    _refuse_without_effect(config)
    try:
        make_kernel(config.kernel)
    except InputError as error:
        raise InputError(f"{error} Change it by the fields config.kernel.*.") from None


def _refuse_without_effect(config: ConfigDict) -> None:
    """Raises InputError for a field that is not its default although nothing reads it."""
    kernel, features = config.kernel.name, config.features.name
    is_conv = features == "random_conv"
    needs = [
        ("kernel.bandwidth", kernel in ("gaussian", "laplacian"), "kernel.name", kernel),
        ("kernel.degree", kernel == "polynomial", "kernel.name", kernel),
        ("kernel.offset", kernel == "polynomial", "kernel.name", kernel),
        ("features.num_filters", is_conv, "features.name", features),
        ("features.filters_per_block", is_conv, "features.name", features),
        ("features.product_dtype", is_conv, "features.name", features),
        ("features.product_dtype", config.dtype == "float64", "dtype", config.dtype),
        ("ridge", not config.choose_ridge, "choose_ridge", config.choose_ridge),
    ]
    for path, is_read, other, value in needs:
        usual = [FIELDS[path].default]
        if path == "kernel.bandwidth":
            # A row has its bandwidth also if the command line gives it another kernel.
            usual.extend(BANDWIDTHS.values())
        require(
            is_read or get(config, path) in usual,
            f"config.{path}={get(config, path)} has no effect with config.{other}={value}. "
            f"Leave it at {usual[0]}, or change config.{other}.",
        )


def make_kernel(settings: ConfigDict) -> gram.Kernel:
    """The kernel that `config.kernel` names. Raises InputError for values that none can have."""
    if settings.name == "gaussian":
        return gram.Gaussian(settings.bandwidth)
    if settings.name == "laplacian":
        return gram.Laplacian(settings.bandwidth)
    if settings.name == "polynomial":
        return gram.Polynomial(settings.degree, settings.offset)
    return gram.Linear()


@distributed.notice_sigterm()
def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Solves the system that `config` describes; returns the contents of result.json.

    Returns None if `deadline` (of time.monotonic()) or SIGTERM came first. The same call then
    continues: see `kernel_system.keep`.

    Raises InputError for settings, data, devices or memory that cannot work, before any time is
    spent; and for a system that cannot be solved.
    """
    import jax

    from rethinking.experiments import kernel_backend, kernel_system
    from rethinking.kernels import interpolate

    start = time.monotonic()
    kept = None

    def look() -> None:
        """Ends the run if its time is up."""
        if distributed.must_stop(deadline):
            if kept is not None:
                kept.flush()
            raise distributed.OutOfTime

    backend = kernel_backend.make_backend(config)
    data = kernel_system.load(config)
    try:
        look()
        with jax.enable_x64(True):
            system = kernel_system.build(config, data, backend, look)
            ridge, chosen = kernel_system.choose_ridge(config, system, data)
            _LOG.info("Solving for %d examples, ridge %g.", len(data.train), chosen["ridge"])
            kept = kernel_system.keep(config, run_directory.path, backend, data, ridge)
            solution = interpolate.solve(system, data.targets, data.labels, ridge, look, kept)
            test_error = solution.error(data.test, data.test_labels)
    except distributed.OutOfTime:
        _LOG.info("Out of time; the same command continues.")
        return None
    except InputError:
        if kept is not None:
            kept.remove()
        raise
    return {
        "status": "complete",
        "seconds": time.monotonic() - start + (kept.seconds_before if kept is not None else 0.0),
        "num_examples": len(data.train),
        "eval_split": data.eval_split,
        "test_error": test_error,
        **chosen,
        **kernel_system.cost_and_accuracy(solution),
    }
