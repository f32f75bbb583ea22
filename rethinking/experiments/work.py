"""What a run computes, counted before it starts: operations, bytes and kernels.

All numbers are those of a run to its last epoch. A run that ends when it fits takes less.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import tempfile
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rethinking import experiments, paths, provenance
from rethinking.chips import FULL_FLOAT32
from rethinking.config import get
from rethinking.data.description import Info
from rethinking.errors import InputError
from rethinking.experiments import data_set
from rethinking.runs import json_files

# The paper's sets, for a machine on which they are not prepared.
KNOWN = {
    "cifar10": Info(50_000, 10_000, (32, 32, 3), 10),
    "mnist": Info(60_000, 10_000, (28, 28, 1), 10),
    "imagenet2012": Info(1_281_167, 50_000, (-1, -1, 3), 1000),
}
# Fields that change numbers, but not the operations of a step or an evaluation. Weight decay adds
# two operations for each parameter, which is nothing beside the products.
_SAME_PROGRAM = (
    *("seed", "randomize.labels", "randomize.pixels", "randomize.seed", "eval.shifts"),
    *("max_epochs", "eval_epochs", "eval.num_train", "stop_when_fit", "fit_accuracy"),
    *("learning_rate", "reference_batch_size", "schedule", "decay_per_epoch", "epochs_per_decay"),
    *("warmup_epochs", "momentum", "weight_decay", "label_smoothing"),
    *("data.num_train", "data.num_test", "data.eval_split", "data.test_fraction"),
    *("draws", "halvings", "doublings", "radius", "bandwidth", "replacements"),
)


class Part(NamedTuple):
    """A part of a run: a computation that is repeated `times` times."""

    what: str
    times: float | int
    flops: float | int
    bytes: float | int
    kernels: float | int
    dtype: str
    convolves: bool = False


def count(config: ConfigDict) -> list[Part]:
    """The parts of the run of `config`.

    Raises InputError for data that are neither prepared nor among `KNOWN`, and for a network that
    cannot be made.
    """
    info = describe(config)
    counts = {"kernels": _kernels, "expressivity": _expressivity, "linear": _linear}
    if config.kind in counts:
        return counts[config.kind](config, info)
    if config.kind == "complexity":
        return _complexity(config, info)
    return _training(config, info)


def flops(parts: list[Part]) -> float | int:
    """The floating-point operations of a run."""
    return sum(part.times * part.flops for part in parts)


def describe(config: ConfigDict) -> Info:
    """The sizes of the data set of a run, also if it is one of `KNOWN` and not prepared."""
    name, data_dir = config.data.name, config.data.data_dir or None
    try:
        if config.kind == "training" and config.data.stream:
            from rethinking.data import source

            evaluation = data_set.evaluation(config)
            found = source.find(name, data_dir, evaluation=evaluation, streamed=True)
            return evaluation.held_out(found.info)
        return data_set.describe(config)
    except InputError:
        if name in KNOWN and not config.data.test_fraction:
            return KNOWN[name]
        raise


def _training(config: ConfigDict, info: Info) -> list[Part]:
    n = config.data.num_train or info.num_train
    num_test = config.data.num_test or info.num_test
    steps_per_epoch = n / config.batch_size if config.data.stream else n // config.batch_size
    before_end = len(range(0, config.max_epochs, config.eval_epochs))
    sample = config.eval.num_train if 0 < config.eval.num_train < n else n
    seen = before_end * (sample + num_test) + n + num_test
    if not config.data.stream:
        seen += n + (num_test if config.randomize.labels == 1 else 0)  # the logits of the end
    return _programs(config, info, config.max_epochs * steps_per_epoch, seen)


def _complexity(config: ConfigDict, info: Info) -> list[Part]:
    """The trainings. The closed forms and the changes of losses are not counted."""
    n = config.data.num_train or info.num_train
    if config.measure == "rademacher":
        info = dataclasses.replace(info, num_classes=2)
        sizes = [n >> halving for halving in range(config.halvings + 1)]
        trainings = [size for size in sizes for _ in range(config.draws)]
        seen = n
        evaluated = sum(trainings)
    else:
        # On S, on S again as the control, and once for each replacement.
        trainings = [n] * (config.replacements + 2)
        seen = n + config.replacements + (config.data.num_test or info.num_test)
        evaluated = len(trainings) * seen
    steps = config.max_epochs * sum(size // config.batch_size for size in trainings)
    return _programs(config, info, steps, (config.max_epochs + 1) * evaluated)


def _programs(
    config: ConfigDict, info: Info, steps: float | int, evaluated: float | int
) -> list[Part]:
    """`steps` training steps, and the evaluation of `evaluated` examples."""
    found = cached(config, info)
    return [
        Part("training", steps, **found["step"], dtype=config.dtype),
        Part(
            "evaluation",
            evaluated / found["evaluation_batch"],
            **found["evaluation"],
            dtype=config.dtype,
        ),
    ]


def _kernels(config: ConfigDict, info: Info) -> list[Part]:
    """By the sizes of the system: see docs/kernel_system.md. A half of each matrix is computed."""
    from rethinking.experiments import kernel_backend
    from rethinking.kernels import count as counts
    from rethinking.kernels import ridge

    size = kernel_backend.size(config, info)
    n, m, d, c = size.n, config.data.num_test or info.num_test, size.num_features, size.num_outputs
    gram = counts.gram_operations(n, d)
    exact = "float64" if config.dtype == "float64" else FULL_FLOAT32
    parts = [Part("factor", 1, counts.least_operations(n), 0, 0, exact)]
    if size.conv is not None:
        per_image = counts.conv_operations(size.conv, info.example_shape)
        features = Part("features", 2 * n + m, per_image, 0, 0, FULL_FLOAT32, convolves=True)
        in_float32 = config.features.product_dtype == "float32"
        products = FULL_FLOAT32 if in_float32 else exact
        parts += [features, Part("gram", 1, gram + 4 * n * d * c, 0, 0, products)]
    elif config.random_centers:
        centers = config.random_centers * n
        matrix = counts.gram_operations(n, centers) + centers**2 * d
        parts.append(Part("features", 3, 2 * n * centers * d, 0, 0, "float64"))
        parts.append(Part("gram", 1, matrix, 0, 0, "float64"))
    else:
        parts.append(Part("gram", 2, gram, 0, 0, "float64"))  # the matrix, and the residual
        parts.append(Part("test", 1, 2 * m * n * (d + c), 0, 0, "float64"))
    if config.choose_ridge:
        fitted, held_out = ridge.split(n)
        factor_operations = counts.least_operations(fitted)
        matrix = 2 * (fitted + held_out) ** 2 * d
        parts.append(Part("ridge", len(ridge.RIDGES), factor_operations, 0, 0, "float64"))
        parts.append(Part("ridge's matrix", 1, matrix, 0, 0, "float64"))
    return parts


def _expressivity(config: ConfigDict, info: Info) -> list[Part]:
    """Every unit for every point: a difference, a maximum, and a product for each output."""
    n = config.data.num_train or info.num_train
    outputs = info.num_classes if config.one_hot else 1
    per_point = 2 * math.prod(info.example_shape) + n * (2 + 2 * outputs)
    return [Part(f"evaluation in {dtype}", n, per_point, 0, 0, dtype) for dtype in _PRECISIONS]


_PRECISIONS = ("float64", "float32")


def _linear(config: ConfigDict, info: Info) -> list[Part]:
    """SGD from two starts, with some four kernels a step, and the rows of five Hessians."""
    n = config.data.num_train or info.num_train
    d = math.prod(info.example_shape)
    if config.features.name == "fourier":
        d = 2 * config.features.num_frequencies
    step = 5 * d * info.num_classes
    return [
        Part("sgd", 2 * config.steps, step, 0, 4, "float64"),
        Part("hessians", 5, 2 * n * d**2, 0, 0, "float64"),
    ]


def cached(config: ConfigDict, info: Info) -> dict[str, Any]:
    """The fields of `lowered.Programs` from a file in the user's cache folder.

    They are counted if they are not there. Runs that differ only in numbers share them.
    """
    config = _without_numbers(config)
    file = paths.cache() / "rethinking" / "work" / f"{_digest(config, info)}.json"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        if isinstance(found, dict) and found.keys() == _FIELDS:
            return found
    from rethinking.experiments import lowered  # here, because a cached count needs no JAX

    programs = lowered.count(config, info)
    found = programs._asdict()
    for name in ("step", "evaluation"):
        found[name] = found[name]._asdict()
    with contextlib.suppress(OSError):  # a full disk, for instance
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
            json.dump(found, written)
        os.replace(written.name, file)
    return found


_FIELDS = {"step", "evaluation", "evaluation_batch"}


def _without_numbers(config: ConfigDict) -> ConfigDict:
    """A copy of `config` with the default in each field of `_SAME_PROGRAM`."""
    config = config.copy_and_resolve_references()
    fields = experiments.KINDS[config.kind].FIELDS
    for path in _SAME_PROGRAM:
        *group, name = path.split(".")
        if path in fields:
            (get(config, group[0]) if group else config)[name] = fields[path].default
    return config


def _digest(config: ConfigDict, info: Info) -> str:
    """A text that changes with the programs of a network, and with the code that makes them."""
    code = [importlib.metadata.version(name) for name in ("jax", "flax")]
    key = [
        experiments.scientific(config),
        config.eval_batch_size,
        dataclasses.astuple(info),
        data_set.vocab_size(config) if info.kind == "tokens" else None,
        [*code, provenance.source_digest()],
    ]
    return json_files.sha256(key)[:16]
