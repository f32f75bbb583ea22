"""Settings of an experiment: the fields of every kind, and the checks made before any time is spent."""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

PIXELS = ("none", "shuffled", "random", "gaussian")
DTYPES = ("float32", "bfloat16")
OPTIMIZERS = ("sgd", "rmsprop")
KERNELS = ("gaussian", "laplacian", "linear", "polynomial")
MEASURES = ("rademacher", "stability")
FEATURES = ("pixels", "gabor", "random_conv")
# Fields that say where and how a run is made, not what it computes.
UNSCIENTIFIC = ("experiment", "row", "data.data_dir", "data.num_threads", "data.num_workers", "num_devices",
                "checkpoint_seconds", "eval_batch_size")
# Fields in which the repetitions of one experiment differ.
SEEDS = ("seed", "randomize.seed")


class ConfigError(Exception):
    """A mistake of the user's, with its cause and remedy; the command line prints it and exits with code 2."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message that names what `name` may have been meant to be, or else all that is known."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known are: {', '.join(names)}."


def known(name: str, names: Iterable[str], message: str) -> None:
    """Raises ConfigError with `message` and the nearest valid name unless `name` is one of `names`."""
    if name not in names:
        raise ConfigError(f"{message} {name!r}. {nearest(name, names)}")


def training() -> ConfigDict:
    """The fields of every training run, with the values that switch off whatever a row does not ask for."""
    return ConfigDict({
        "experiment": "",  # the config file's name; a run's row is `experiment:row`
        "row": "",  # the row that it began as
        "kind": "training",  # which experiment of rethinking.main runs it
        "seed": 0,  # initialization, order and augmentation
        "batch_size": 128,  # over all devices
        "max_epochs": 100,  # at which the run ends
        "stop_when_fit": False,  # stop at the first epoch that reaches fit_accuracy
        "fit_accuracy": 0.99,  # training accuracy, in evaluation mode, that counts as fitted
        "optimizer": "sgd",  # or "rmsprop", TensorFlow's, with epsilon = 1 inside of the root
        "learning_rate": 0.01,  # at the start
        "reference_batch_size": 0,  # learning_rate is for batches of this size, and scaled in proportion; 0: not scaled
        "momentum": 0.9,  # of SGD, and of RMSProp
        "decay_per_epoch": 0.95,  # factor on the learning rate after every epoch, or every `epochs_per_decay` epochs
        "epochs_per_decay": 1.0,
        "warmup_epochs": 0.0,  # in which the learning rate rises from zero
        "weight_decay": 0.0,  # coefficient of half the squared norm of the kernels
        "label_smoothing": 0.0,  # the part of a label that is spread over all classes, in training
        "workers": 1,  # asynchronous workers to imitate: gradients come workers - 1 steps late
        "average_decay": 0.0,  # of a moving average of the weights, which then is what is evaluated; 0: the weights
        "dtype": "float32",  # of the computation; parameters are always float32
        "eval_epochs": 1,  # epochs between two evaluations
        "eval_batch_size": 1000,  # per device
        "checkpoint_seconds": 60.0,  # at least so long between two checkpoints; 0: after every epoch
        "num_devices": 0,  # devices to spread a batch over; 0: all there are
        "data": {
            "name": "digits",  # "digits" or a TFDS image-classification set
            "data_dir": "",  # "": $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "num_train": 0,  # keep the first n of a seeded permutation of the training set; 0: all, in order
            "num_test": 0,  # likewise of the test set
            "crop_size": 0,  # side of the centre crop that the network sees; 0: the whole image
            "whiten": True,  # per image: mean zero, variance one
            "stream": False,  # read from disk batch by batch, not kept on the device: for large sets of JPEGs
            "image_size": 299,  # of streamed images, which are resized to it
            "skip_bad": False,  # leave out streamed images that cannot be read, and count them, instead of stopping
            "num_threads": 16,  # that read, decode and distort streamed images, in each process
            "num_workers": 0,  # further processes, on each host, that these threads are spread over
        },
        "eval": {
            "num_train": 0,  # evaluate so many training images on the way, a seeded choice, and all in the end; 0: all
            "shifts": "",  # further test sets, for the end, such as "noise,blur=2,cifar10_1": see data/shifts.py
        },
        "model": {
            "name": "mlp_1x512",  # a name in rethinking.models, or package.module:Class
            "sync_batch_norm": False,  # statistics over the global batch instead of each device's own
            "options": {},  # further fields of the network, such as inception_v3's `dropout`
        },
        "randomize": {
            "labels": 0.0,  # probability that a training label is replaced by a random one
            "pixels": "none",
            "seed": 0,  # of what the corruption draws
        },
        "augment": {  # of training images; all off by default
            "crop": False,  # a random crop of crop_size instead of the centre crop; streamed: a random box, resized
            "flip": False,
            "brightness": 0.0,  # largest shift, of pixels in [0, 1]
            "saturation": 0.0,  # s: factor from [1 - s, 1 + s]
            "hue": 0.0,  # largest shift, of a full turn
            "contrast": 0.0,  # c: factor from [1 - c, 1 + c]
        },
    })


def expressivity() -> ConfigDict:
    """The fields of every run that builds a network of section 4 instead of training one."""
    return ConfigDict({
        "experiment": "",
        "row": "",
        "kind": "expressivity",
        "seed": 0,  # the subset of the data, and the projection's draws
        "num_devices": 1,  # one is all that is used
        "depth": 2,  # 2: Theorem 1; more: Corollary 1
        "one_hot": False,  # targets: a vector for each class instead of the label as a number
        "data": {"name": "cifar10", "data_dir": "", "num_train": 0},  # as in `training`
        "randomize": {"labels": 1.0, "seed": 0},  # as in `training`; by default all labels are random
    })


def complexity() -> ConfigDict:
    """The fields of every run that measures how complex a network is (section 2.2): those of its training, and more."""
    config = training()
    config.update({
        "kind": "complexity",
        "measure": "rademacher",
        "draws": 5,  # rademacher: of the random signs
        "halvings": 0,  # rademacher: also with a half, a quarter, ... of the training images
        "doublings": 0,  # rademacher: linear models also with twice, four times, ... as many
        "radius": 1.0,  # rademacher: of the kernel's ball, whose functions are at most so large
        "bandwidth": 0.5,  # rademacher: of the Gaussian kernel, for images scaled to norm one
        "replacements": 5,  # stability: of one example each, by one that is not in the training set
    })
    return config


def interpolation() -> ConfigDict:
    """The fields of every run that solves a linear system of section 5 instead of training a network."""
    return ConfigDict({
        "experiment": "",
        "row": "",
        "kind": "kernels",
        "seed": 0,  # the subset of the data, the filters, the random centers, the held-out examples
        "num_devices": 0,  # 0: all there are
        "dtype": "float64",  # of the factor; float32 is refined with residuals in float64
        "ridge": 0.0,  # added to the matrix's diagonal, in units of that diagonal's mean; 0: interpolation
        "choose_ridge": False,  # by the error on held-out training examples; then `ridge` is not used
        "random_centers": 0,  # so many centers per example, at random points; 0: the examples are the centers
        "random_test_labels": False,  # the test images join the training set, with random labels
        "kernel": {
            "name": "gaussian",
            "bandwidth": 5.0,  # of "gaussian" and "laplacian", in units of the features
            "degree": 2,  # of "polynomial"
            "offset": 1.0,  # of "polynomial"
        },
        "features": {
            "name": "pixels",  # of the images, divided by 255
            "num_filters": 32_000,  # of "random_conv"
            "filters_per_block": 128,  # of "random_conv": so many filters' features exist at once
        },
        "data": {"name": "mnist", "data_dir": "", "num_train": 0, "num_test": 0},  # as in `training`
        "randomize": {"labels": 0.0, "seed": 0},  # as in `training`
    })


def check(config: ConfigDict) -> None:
    """Raises ConfigError for values that no run can have. Data and workdir are checked where they are read."""
    known(config.kind, KINDS, "config.kind: unknown")
    for field in ("seed", "randomize.seed"):
        value = _get(config, field)
        _require(value >= 0, f"config.{field}={value}: must not be negative")
        _require(value < 2**31, f"config.{field}={value}: must be below 2**31")
    for field in ("num_devices", "data.num_train"):
        _require(_get(config, field) >= 0, f"config.{field}={_get(config, field)}: must not be negative")
    value = config.randomize.labels
    _require(0 <= value <= 1, f"config.randomize.labels={value}: must be in [0, 1]")
    KINDS[config.kind].check(config)


def _check_expressivity(config: ConfigDict) -> None:
    _require(config.depth >= 2, f"config.depth={config.depth}: must be at least 2, one hidden layer and the output")


def _check_complexity(config: ConfigDict) -> None:
    _check_training(config)
    known(config.measure, MEASURES, "config.measure: unknown")
    _require(not (config.data.stream or config.eval.shifts or config.eval.num_train),
             "config.data.stream and config.eval: the measures of section 2.2 have no use for them")
    for field in ("draws", "replacements"):
        _require(config[field] >= 1, f"config.{field}={config[field]}: must be at least 1")
    for field in ("halvings", "doublings"):
        _require(0 <= config[field] < 31, f"config.{field}={config[field]}: must be 0 to 30")
    for field in ("radius", "bandwidth"):
        _require(0 < config[field] < math.inf, f"config.{field}={config[field]}: must be a positive number")


def _check_interpolation(config: ConfigDict) -> None:
    for field in ("ridge", "random_centers", "data.num_test"):
        value = _get(config, field)
        _require(0 <= value < math.inf, f"config.{field}={value}: must not be negative")
    for field in ("kernel.bandwidth", "kernel.degree", "features.num_filters", "features.filters_per_block"):
        value = _get(config, field)
        _require(0 < value < math.inf, f"config.{field}={value}: must be a positive number")
    known(config.dtype, ("float32", "float64"), "config.dtype: unknown")
    known(config.kernel.name, KERNELS, "config.kernel.name: unknown")
    known(config.features.name, FEATURES, "config.features.name: unknown")
    streamed = config.features.name == "random_conv"
    _require(not streamed or config.kernel.name == "linear",
             "config.features.name=random_conv: its features never exist at once, so only config.kernel.name=linear")
    _require(not config.random_centers or not (streamed or config.ridge or config.choose_ridge),
             "config.random_centers is for a kernel on features that exist at once, without a ridge")


def _check_training(config: ConfigDict) -> None:
    for field in ("batch_size", "eval_batch_size", "max_epochs", "eval_epochs", "workers", "data.num_threads",
                  "data.image_size"):
        _require(_get(config, field) >= 1, f"config.{field}={_get(config, field)}: must be at least 1")
    for field in ("learning_rate", "decay_per_epoch", "epochs_per_decay"):
        _require(0 < config[field] < math.inf, f"config.{field}={config[field]}: must be a positive number")
    colours = [f"augment.{name}" for name in ("brightness", "saturation", "hue", "contrast")]
    for field in ("weight_decay", "reference_batch_size", "warmup_epochs", "checkpoint_seconds", "data.num_test",
                  "data.num_workers", "data.crop_size", "eval.num_train", *colours):
        value = _get(config, field)
        _require(0 <= value < math.inf, f"config.{field}={value}: must not be negative")
    for field in ("momentum", "label_smoothing", "average_decay"):
        _require(0 <= config[field] < 1, f"config.{field}={config[field]}: must be in [0, 1)")
    _require(0 <= config.fit_accuracy <= 1, f"config.fit_accuracy={config.fit_accuracy}: must be in [0, 1]")
    for field in ("saturation", "contrast"):
        _require(config.augment[field] <= 1, f"config.augment.{field}={config.augment[field]}: must be at most 1")
    _require(config.augment.hue <= 0.5, f"config.augment.hue={config.augment.hue}: half a turn, 0.5, is the most")
    known(config.dtype, DTYPES, "config.dtype: unknown")
    known(config.optimizer, OPTIMIZERS, "config.optimizer: unknown")
    known(config.randomize.pixels, PIXELS, "config.randomize.pixels: unknown")
    _require(not (config.augment.crop and config.randomize.pixels != "none"),
             "config.augment.crop=True with randomized pixels: pixels are randomized in the 28x28 that the network "
             "sees, so nothing is left to crop from. Set one of the two off.")
    _require(not config.augment.crop or config.data.crop_size > 0 or config.data.stream,
             "config.augment.crop=True needs config.data.crop_size, the side of the crop")
    _require(not config.data.stream or not config.eval.shifts,
             "config.eval.shifts is for sets that fit into memory, config.data.stream=False")
    _require(not config.data.stream or (config.randomize.pixels == "none" and config.data.crop_size == 0),
             "config.data.stream=True reads images of any size: config.randomize.pixels and config.data.crop_size are "
             "for sets that fit into memory")
    _require(config.data.whiten or not config.data.stream,
             "config.data.whiten=False: streamed images are scaled to [-1, 1] and never whitened, leave it alone")
    _require(config.data.stream or (config.data.image_size == training().data.image_size and not config.data.skip_bad),
             "config.data.image_size and config.data.skip_bad are for streamed images, config.data.stream=True")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of the configs of one kind of experiment."""

    defaults: Callable[[], ConfigDict]
    check: Callable[[ConfigDict], None]


KINDS = {"training": Kind(training, _check_training), "expressivity": Kind(expressivity, _check_expressivity),
         "kernels": Kind(interpolation, _check_interpolation), "complexity": Kind(complexity, _check_complexity)}


def scientific(config: ConfigDict | dict) -> dict[str, Any]:
    """The flat fields that decide what a run computes, field path -> value, where they differ from their defaults.

    Without the defaults, because then a field that is added later, off by default, leaves old runs what they are. A
    default must therefore never change its meaning. The seed of a corruption that leaves everything as it is decides
    nothing.
    """
    kind = KINDS.get(config.get("kind"), KINDS["training"])
    # "training" for every kind, since configs of different kinds with nothing but defaults differ in this alone.
    defaults = flat(kind.defaults()) | {"kind": "training"}
    fields = {field: value for field, value in flat(config).items()
              if field not in UNSCIENTIFIC and not (field in defaults and value == defaults[field])}
    if kind is KINDS["training"] and {"randomize.labels", "randomize.pixels"}.isdisjoint(fields):
        fields.pop("randomize.seed", None)
    return fields


def digest(config: ConfigDict | dict) -> str:
    """Twelve hex digits that agree exactly when two configs describe the same experiment, whatever their seeds."""
    fields = {field: value for field, value in scientific(config).items() if field not in SEEDS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def flat(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"data.name": ...}."""
    fields = {}
    for key, value in config.items():
        path = prefix + key
        fields.update(flat(value, path + ".") if isinstance(value, ConfigDict | dict) else {path: value})
    return fields


def check_field(field: str, config: ConfigDict) -> None:
    """Raises ConfigError, with what may have been meant, unless `config` has that field or group of fields."""
    found: Any = config
    for key in field.split("."):
        if isinstance(found, ConfigDict) and not found:
            raise ConfigError(f"config.{field}: nothing is set in that group yet. Set the whole of it, "
                              f"--config.{field.rpartition('.')[0]}=\"{{'{key}': VALUE}}\"")
        if not isinstance(found, ConfigDict) or key not in found:
            name = field.rpartition(".")[2]
            fields = flat(config)
            elsewhere = [path for path in fields if path.rpartition(".")[2] == name]
            raise ConfigError(f"config.{field}: unknown field. {nearest(field, elsewhere or fields)}")
        found = found[key]


def load_file(path: str) -> ModuleType:
    """Imports a file of configs/: a module with ROWS and get_config(row)."""
    file = pathlib.Path(path)
    if not file.is_file():
        others = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise ConfigError(f"--config={path}: no such file. {nearest(path, others)}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config") or not hasattr(module, "ROWS"):
        raise ConfigError(f"--config={path}: a config file defines ROWS and get_config(row); this one does not")
    return module


def _get(config: ConfigDict, field: str) -> Any:
    for key in field.split("."):
        config = config[key]
    return config


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
