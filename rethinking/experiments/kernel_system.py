"""The parts of a Table 3 run: its data and features, its system, its ridge, what it keeps."""

import dataclasses
import hashlib
import logging
import os
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import psutil
from etils import epath
from ml_collections import ConfigDict

from rethinking import provenance, randomize
from rethinking.config import get
from rethinking.data.description import HELD_OUT
from rethinking.experiments import data_set
from rethinking.experiments.kernels import FIELDS, make_kernel
from rethinking.kernels import checks, probe, ridge
from rethinking.kernels.backend import Backend
from rethinking.kernels.gabor import gabor
from rethinking.kernels.interpolate import Interpolant
from rethinking.kernels.kept import Kept
from rethinking.kernels.random_conv import FittedRandomConv, RandomConv
from rethinking.kernels.systems import Blocks, CentersSystem, FeatureSystem, KernelSystem, System
from rethinking.runs.folder import SOLVE

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples of a run. With a random conv-net they are images, else features [n, d]."""

    train: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    eval_split: str
    net: FittedRandomConv | None = None


def load(config: ConfigDict) -> Data:
    """The training set with its labels, random ones where the config says so, and the test set.

    Raises InputError for data that no system can have: see `rethinking.kernels.checks`.
    """
    dataset = data_set.standardized(data_set.load(config))
    test, num_classes = dataset.test, dataset.num_classes
    images, labels = _training_examples(config, dataset)
    repeats = bool(config.ridge or config.choose_ridge)
    if config.features.name == "random_conv":
        targets = checks.one_hot(labels, num_classes)
        if not repeats:
            checks.refuse_repeated(images, targets)
        net = RandomConv(config.features.num_filters).fit(images, config.seed)
        return Data(
            images, labels, targets, test.images, test.labels, num_classes, dataset.eval_split, net
        )
    extract = gabor if config.features.name == "gabor" else data_set.features
    train = checks.training_set(extract(images), labels, num_classes, repeats)
    return Data(
        train=train.x,
        labels=labels,
        targets=train.targets,
        test=extract(test.images),
        test_labels=test.labels,
        num_classes=num_classes,
        eval_split=dataset.eval_split,
    )


def _training_examples(config: ConfigDict, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Examples and labels to fit, with `random_test_labels` also those of the test set."""
    train, test, num_classes = dataset.train, dataset.test, dataset.num_classes
    seed = config.randomize.seed
    labels = randomize.corrupt_labels(
        train.labels, train.indices, num_classes, config.randomize.labels, seed
    )
    if not config.random_test_labels:
        return train.images, labels
    # What is drawn for an example depends on its index. So the test examples need other indices
    # than the training examples.
    indices = test.indices
    if dataset.eval_split != HELD_OUT:
        indices = indices + data_set.describe(config).num_train
    random_labels = randomize.corrupt_labels(test.labels, indices, num_classes, 1.0, seed)
    images = np.concatenate([train.images, test.images])
    return images, np.concatenate([labels, random_labels])


def build(
    config: ConfigDict, data: Data, backend: Backend, before_block: Callable[[], None]
) -> System:
    """The system that `config` describes.

    `before_block` is called before each block of features is used, and may raise an exception.
    Raises InputError for a kernel that says nothing of the data.
    """
    if data.net is not None:
        filters_per_block = config.features.filters_per_block
        blocks = _random_conv_blocks(data.net, filters_per_block, before_block)
        features = data.net.on_devices(filters_per_block)

        def parameters(first: int) -> Iterator[tuple]:
            for each in features.parameters(first):
                before_block()
                yield each

        on_devices = dataclasses.replace(features, parameters=parameters)
        # A float32 factor multiplies in float32 anyway.
        product_dtype = config.features.product_dtype if config.dtype == "float64" else None
        return FeatureSystem(blocks, data.train, backend, on_devices, product_dtype)
    kernel = make_kernel(config.kernel)
    probe.check_kernel(kernel, data.train, backend)
    if not config.random_centers:
        return KernelSystem(kernel, data.train, backend)
    # The centers are uniform in the cube that the features span.
    low, high = data.train.min(), data.train.max()
    shape = (config.random_centers * len(data.train), data.train.shape[1])
    centers = np.random.default_rng(config.seed).uniform(low, high, shape)
    return CentersSystem(kernel, centers, data.train, backend, before_block=before_block)


def _random_conv_blocks(
    net: FittedRandomConv, filters_per_block: int, before_block: Callable[[], None]
) -> Blocks:
    # A CPU computes one image after the other on each core; an accelerator wants many at once.
    batch_size = 40 if jax.default_backend() == "cpu" else 1000

    def blocks(images: np.ndarray, first: int = 0) -> Iterator[np.ndarray]:
        for block in net.blocks(images, filters_per_block, batch_size, first):
            before_block()
            yield block

    return blocks


def choose_ridge(config: ConfigDict, system: System, data: Data) -> tuple[float, dict[str, Any]]:
    """The number to add to the matrix's diagonal, and the fields of result.json about its choice.

    The field `ridge` is in units of the diagonal's mean, as in the config.
    """
    fields: dict[str, Any] = {"ridge": config.ridge}
    if config.choose_ridge:
        errors = ridge.errors(system, data.train, data.labels, data.num_classes, config.seed)
        fields["ridge"] = min(errors, key=errors.get)
        fields["held_out_errors"] = {f"{one:g}": error for one, error in errors.items()}
    if not fields["ridge"]:
        return 0.0, fields
    return fields["ridge"] * system.mean_diagonal(data.train), fields


def keep(
    config: ConfigDict, folder: epath.Path, backend: Backend, data: Data, ridge: float
) -> Kept | None:
    """What keeps the finished parts of the solve in the run directory, under `solve`.

    None in a bucket, for several processes, and if the disk has too little space for a solve that
    has kept nothing yet. Such a solve starts over when it is interrupted.
    """
    if "://" in os.fspath(folder) or jax.process_count() > 1:
        return None
    layout = backend.layout
    size = layout.entries * layout.num_devices * backend.dtype.itemsize
    if data.net is not None or config.random_centers:
        size *= 2  # a sum of products, beside an older one or beside the factor
    solve = pathlib.Path(folder) / SOLVE
    there = sum(file.stat().st_size for file in solve.glob("*"))
    free = psutil.disk_usage(os.fspath(folder)).free
    sizes = f"up to {size / 1e9:.2f} GB, and its disk has {free / 1e9:.2f} GB free"
    if there:
        sizes += f" beside the {there / 1e9:.2f} GB that are there"
    elif size > free:
        _LOG.warning(
            "Finished parts of the solve take %s. So they are not kept, and the solve starts over "
            "if it is interrupted. Free some space, or choose another --workdir.",
            sizes,
        )
        return None
    _LOG.info("Finished parts of the solve are kept in %s: %s.", solve, sizes)
    settings = {path: get(config, path) for path, field in FIELDS.items() if field.scientific}
    examples = hashlib.blake2b(np.ascontiguousarray(data.train)).hexdigest()
    matrix = f"{settings}, ridge {ridge!r}, {examples}, {provenance.source_digest()}"
    return Kept(solve, backend, matrix)


def cost_and_accuracy(solution: Interpolant) -> dict[str, Any]:
    """The fields of result.json that say how accurate a solution is, and what it took.

    `train_error` compares with the training labels, which the config may make random. For the other
    fields see `rethinking.kernels.certificate.Certificate`.
    """
    fields = dataclasses.asdict(solution.certificate)
    for step, seconds in dataclasses.asdict(solution.seconds).items():
        fields[f"{step}_seconds"] = seconds
    fields["peak_bytes"] = peak_bytes()
    return fields


def peak_bytes() -> int:
    """The most memory that was in use: of the fullest accelerator, or else of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if peaks:
        return max(peaks)
    # macOS counts in bytes, Linux in units of 1,024 bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
