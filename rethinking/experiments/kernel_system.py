"""Table 3 on real data: a training set is interpolated by one solve, and the solution tested and certified."""

import dataclasses
import functools
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import scipy.linalg
from ml_collections import ConfigDict

from rethinking import distributed, randomize, runs
from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.kernels import cholesky, features, gram, interpolate, memory
from rethinking.kernels.cholesky import Backend
from rethinking.kernels.systems import Blocks, CentersSystem, FeatureSystem, KernelSystem, System

_LOG = logging.getLogger(__name__)
# What `choose_ridge` chooses from, in units of the mean of the matrix's diagonal.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# It fits so many training examples and tests on so many others, or on two thirds and one third if there are fewer.
NUM_FITTED, NUM_HELD_OUT = 8_000, 4_000


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Solves the system that `config` describes; returns the contents of result.json.

    `train_error` and `test_error` are of the largest output, against the training labels (random ones where the config
    says so) and the true test labels; for `norm` and the like see `rethinking.kernels.interpolate.Certificate`.

    Returns None if `deadline` (of time.time()) came first, or a SIGTERM that is noticed (in a sweep, and where several
    processes solve together); the same call then begins anew.
    Raises InputError for settings, data, a workdir or a memory that cannot do, before any time is spent, and for
    systems that cannot be solved.
    """
    start = time.time()
    backend = _backend(config)
    data = _load(config)

    def look_at_the_clock() -> None:
        if distributed.must_stop(deadline):
            raise _OutOfTime

    if data.blocks is not None:
        data = dataclasses.replace(
            data, blocks=functools.partial(_each_after, look_at_the_clock, data.blocks)
        )
    try:
        look_at_the_clock()
        with jax.enable_x64(True):
            chosen = _choose_ridge(config, data) if config.choose_ridge else {"ridge": config.ridge}
            _LOG.info("Solving for %d examples, ridge %g.", len(data.train), chosen["ridge"])
            system = _system(config, data, chosen["ridge"], backend)
            solution = interpolate.solve(system, data.targets, data.train_labels, look_at_the_clock)
            measured = {"test_error": solution.error(data.test, data.test_labels)}
    except _OutOfTime:
        _LOG.info("Out of time; the same command begins anew.")
        return None
    certificate = dataclasses.asdict(solution.certificate)
    seconds = {
        f"{name}_seconds": value for name, value in dataclasses.asdict(solution.seconds).items()
    }
    size = {"num_examples": len(data.train), "peak_bytes": _peak_bytes()}
    ended = {"status": "complete", "seconds": time.time() - start}
    return ended | measured | certificate | seconds | size | chosen


class _OutOfTime(Exception):
    """The deadline, or SIGTERM, came in the middle of a solve."""


def _each_after(
    call: Callable[[], None], blocks: Blocks, images: np.ndarray
) -> Iterator[np.ndarray]:
    for block in blocks(images):
        call()
        yield block


@dataclasses.dataclass(frozen=True)
class _Data:
    train: np.ndarray  # features [n, d], or images where `blocks` makes features of them
    train_labels: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    blocks: Blocks | None


def _load(config: ConfigDict) -> _Data:
    data, seed = config.data, config.randomize.seed
    dataset = arrays.load(
        data.name, data.data_dir or None, data.num_train, config.seed, data.num_test
    )
    train, test = dataset.train, dataset.test
    images = train.images
    labels = randomize.corrupt_labels(
        train.labels, train.indices, dataset.num_classes, config.randomize.labels, seed
    )
    if config.random_test_labels:
        # Indices beyond the training set's, so that these labels are drawn apart from its own.
        indices = test.indices + arrays.describe(data.name, data.data_dir or None).num_train
        images = np.concatenate([images, test.images])
        random_labels = randomize.corrupt_labels(
            test.labels, indices, dataset.num_classes, 1.0, seed
        )
        labels = np.concatenate([labels, random_labels])
    targets = interpolate.one_hot(labels, dataset.num_classes)
    blocks = None
    if config.features.name == "random_conv":
        net = features.RandomConv(config.features.num_filters).fit(images, config.seed)
        blocks = functools.partial(_random_conv_blocks, net, config.features.filters_per_block)
        return _Data(images, labels, targets, test.images, test.labels, blocks)
    extract = features.gabor if config.features.name == "gabor" else _pixels
    inputs, _, _ = interpolate.check(
        extract(images), labels, config.ridge or float(config.choose_ridge)
    )
    return _Data(inputs, labels, targets, extract(test.images), test.labels, None)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255


def _random_conv_blocks(
    net: features.FittedRandomConv, filters: int, images: np.ndarray
) -> Iterator[np.ndarray]:
    # A CPU's caches hold the responses of some images only; an accelerator wants many at once.
    return net.blocks(images, filters, batch_size=10 if jax.default_backend() == "cpu" else 1000)


def make_kernel(settings: ConfigDict) -> gram.Kernel:
    """The kernel that `config.kernel` names."""
    return {
        "gaussian": lambda: gram.Gaussian(settings.bandwidth),
        "laplacian": lambda: gram.Laplacian(settings.bandwidth),
        "linear": gram.Linear,
        "polynomial": lambda: gram.Polynomial(settings.degree, settings.offset),
    }[settings.name]()


def _backend(config: ConfigDict) -> Backend:
    """Where the system is to be solved; raises InputError for missing data or devices, or too little memory."""
    info = arrays.describe(config.data.name, config.data.data_dir or None)
    n = config.data.num_train or info.num_train
    if config.random_test_labels:
        n += config.data.num_test or info.num_test
    num_features = math.prod(info.image_shape)
    penalized = config.ridge or config.choose_ridge
    if config.features.name == "random_conv":
        per_filter = features.RandomConv(config.features.num_filters).features_per_filter(
            *info.image_shape[:2]
        )
        _require_independent(
            n, per_filter * config.features.num_filters, penalized, "config.features.num_filters"
        )
        num_features += per_filter * config.features.filters_per_block
    elif (
        config.features.name == "pixels"
        and config.kernel.name == "linear"
        and not config.random_centers
    ):
        _require_independent(n, num_features, penalized, "another config.kernel.name")
    with jax.enable_x64(True):
        backend = cholesky.make_backend(n, config.dtype, _mesh(config.num_devices))
    memory.require(backend, info.num_classes, num_features)
    if config.choose_ridge:
        rows = sum(_held_out(n))
        # Arrays of the matrix's size at the peak, as measured: products of features, or distances in several steps.
        num_arrays = 2.5 if config.features.name == "random_conv" else 4.25
        memory.require_on_host(
            f"choosing the ridge on {rows} examples",
            num_arrays * 8 * rows**2,
            "config.choose_ridge=false and a ridge (config.ridge), or fewer examples "
            "(config.data.num_train)",
        )
    return backend


def _require_independent(n: int, num_features: int, penalized: Any, more: str) -> None:
    """Raises InputError where linear functions of so few features cannot interpolate n examples."""
    if num_features < n and not penalized:
        raise InputError(
            f"{num_features:,} features cannot interpolate {n:,} examples by a linear function. "
            f"Remedies: more features ({more}), fewer examples (config.data.num_train), or a ridge "
            "(config.ridge, or a row with +ridge)."
        )


def _system(config: ConfigDict, data: _Data, ridge: float, backend: Backend) -> System:
    """The system, with `ridge` in units of its diagonal's mean."""
    if data.blocks is not None:
        return FeatureSystem(
            data.blocks, data.train, ridge * _mean_square(data.blocks, data.train), backend
        )
    kernel = make_kernel(config.kernel)
    if config.random_centers:
        shape = (config.random_centers * len(data.train), data.train.shape[1])
        # Uniform in the cube that the features span.
        low, high = data.train.min(), data.train.max()
        return CentersSystem(
            kernel,
            np.random.default_rng(config.seed).uniform(low, high, shape),
            data.train,
            backend,
        )
    diagonal = (
        np.mean([kernel(row[None], row[None])[0, 0] for row in data.train[:1000]]) if ridge else 0.0
    )
    return KernelSystem(kernel, data.train, ridge * diagonal, backend)


def _mesh(num_devices: int) -> jax.sharding.Mesh | None:
    """A mesh of so many devices; None, for all, if it is 0. Raises InputError if there are not so many."""
    if not num_devices:
        return None
    if num_devices > jax.device_count():
        raise InputError(f"config.num_devices={num_devices}: there are {jax.device_count()}")
    return jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("rows",))


def _mean_square(blocks: Blocks, x: np.ndarray, sample: int = 1000) -> float:
    """The mean of the Gram matrix's diagonal, over the first examples, which are in no order."""
    return float(
        sum(np.square(block, dtype=np.float64).sum() for block in blocks(x[:sample]))
        / len(x[:sample])
    )


def _held_out(n: int) -> tuple[int, int]:
    """How many of n training examples are fitted to choose a ridge, and on how many others it is tested."""
    return min(NUM_FITTED, 2 * n // 3), min(NUM_HELD_OUT, n // 3)


def _choose_ridge(config: ConfigDict, data: _Data) -> dict[str, Any]:
    """The ridge of RIDGES with the least error on held-out training examples, and the errors of all that can be solved
    with."""
    n = len(data.train)
    fitted, held_out = _held_out(n)
    rows = np.random.default_rng(config.seed).permutation(n)[: fitted + held_out]
    x, labels = data.train[rows], data.train_labels[rows]
    if data.blocks is None:
        whole = make_kernel(config.kernel)(x, x)
    else:
        whole = sum(np.float64(1) * (block @ block.T) for block in data.blocks(x))
    ours, theirs = np.asarray(whole[:fitted, :fitted]), np.asarray(whole[fitted:, :fitted])
    errors = {}
    for ridge in RIDGES:
        try:
            penalized = ours.copy()
            penalized[np.diag_indices(fitted)] += ridge * np.trace(ours) / fitted
            factor = scipy.linalg.cho_factor(penalized, overwrite_a=True)
        except (
            scipy.linalg.LinAlgError
        ):  # Fewer features than examples, and their products rounded to float32.
            _LOG.info("Ridge %g: too small, the matrix is not positive definite", ridge)
            continue
        outputs = theirs @ scipy.linalg.cho_solve(factor, data.targets[rows[:fitted]])
        errors[ridge] = float(np.mean(outputs.argmax(1) != labels[fitted:]))
        _LOG.info("Ridge %g: held-out error %.2f%%", ridge, 100 * errors[ridge])
    best = min(errors, key=errors.get)
    return {
        "ridge": best,
        "held_out_errors": {f"{ridge:g}": error for ridge, error in errors.items()},
    }


def _peak_bytes() -> int:
    """The most memory held: of the fullest accelerator, or of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if peaks := [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]:
        return max(peaks)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
