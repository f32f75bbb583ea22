"""Where the system of a Table 3 run is stored, and the checks before its data are loaded."""

import dataclasses
import math

from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data.arrays import Info
from rethinking.errors import InputError
from rethinking.experiments import data_set
from rethinking.experiments.kernels import make_kernel
from rethinking.kernels import cholesky, gram, memory, ridge
from rethinking.kernels.backend import Backend
from rethinking.kernels.gabor import Gabor
from rethinking.kernels.random_conv import RandomConv
from rethinking.kernels.systems import CENTERS_PER_BLOCK


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of the system of a row, known before its data are loaded.

    Attributes:
        n: the number of examples.
        num_features: of an example, as the kernel sees it.
        num_outputs: the number of classes.
        example_shape: of an example on the disk.
        stored: how many numbers of an example exist at once: its pixels, and a block of features.
        conv: the net that computes the features, if one does.
    """

    n: int
    num_features: int
    num_outputs: int
    example_shape: tuple[int, ...]
    stored: int
    conv: RandomConv | None


def size(config: ConfigDict, info: Info) -> Size:
    """The sizes of the system of a row on a data set.

    Raises InputError for examples without such features, and for too few features.
    """
    n = config.data.num_train or info.num_train
    if config.random_test_labels:
        n += config.data.num_test or info.num_test
    num_features = _num_features(config, info)
    _check_num_features(config, num_features, n)
    stored, conv = math.prod(info.example_shape), None
    if config.features.name == "random_conv":
        conv = RandomConv(config.features.num_filters)
        blocks = math.ceil(config.features.num_filters / config.features.filters_per_block)
        stored += math.ceil(num_features / blocks)
    return Size(n, num_features, info.num_classes, info.example_shape, stored, conv)


def make_backend(config: ConfigDict) -> Backend:
    """Where the system is stored and solved.

    Raises InputError for missing data or devices, too few features, or too little memory. It reads
    only the data set's description. So a run that cannot work ends before its data are loaded.
    """
    sizes = size(config, data_set.describe(config))
    mesh = sharding.device_mesh(config.num_devices, "rows")
    backend = cholesky.make_backend(sizes.n, config.dtype, mesh)
    try:
        memory.require(backend, sizes.num_outputs, sizes.stored)
        if config.choose_ridge:
            ridge.require_memory(sizes.n, features=sizes.conv is not None)
        if config.random_centers:
            centers = config.random_centers * sizes.n
            memory.require_on_host(
                f"{centers:,} random centers",
                8.0 * (centers * sizes.num_features + sizes.n * min(centers, CENTERS_PER_BLOCK)),
                "a smaller config.random_centers",
            )
    except InputError as error:
        raise InputError(
            f"{error} Change these by config.data.num_train, config.num_devices, config.dtype, "
            "config.ridge, config.choose_ridge and config.random_centers."
        ) from None
    return backend


def _num_features(config: ConfigDict, info: Info) -> int:
    """The number of features of an example. InputError for one that does not have such features."""
    data_set.refuse_tokens(config, info, "config.kind=kernels")
    name = config.features.name
    if name == "pixels":
        return math.prod(info.example_shape)
    if info.kind != "image":
        raise InputError(
            f"config.features.name={name} is for images, but {config.data.name} has vectors of "
            f"{info.example_shape[0]} features. Set config.features.name=pixels."
        )
    height, width, channels = info.example_shape
    if name == "gabor":
        if channels != 1:
            raise InputError(
                f"config.features.name=gabor needs grey images, and those of {config.data.name} "
                f"have {channels} channels. Choose other features, or another data set."
            )
        return Gabor().num_features
    num_filters = config.features.num_filters
    if num_filters > RandomConv.num_patches:
        raise InputError(
            f"config.features.num_filters={num_filters}: each filter needs a patch, and "
            f"only {RandomConv.num_patches:,} are drawn. Choose at most that number."
        )
    return num_filters * RandomConv(num_filters).features_per_filter(height, width)


def _check_num_features(config: ConfigDict, num_features: int, n: int) -> None:
    """Raises InputError if the functions of the kernel have too few dimensions for n examples."""
    if config.ridge or config.choose_ridge:
        return
    kernel = make_kernel(config.kernel)
    dimensions = gram.dimensions(kernel, num_features, n)
    if dimensions >= n:
        return
    if isinstance(kernel, gram.Linear):
        functions = f"linear functions of {num_features:,} features"
    else:
        functions = f"{dimensions:,} monomials of {num_features:,} features"
    remedy = "another config.kernel.name"
    if config.features.name == "random_conv":
        remedy = "config.features.num_filters"
    elif isinstance(kernel, gram.Polynomial):
        remedy = "a larger config.kernel.degree"
    raise InputError(
        f"{functions} cannot interpolate {n:,} examples. Remedies: more features "
        f"({remedy}), fewer examples (config.data.num_train), or a ridge (config.ridge, or a row "
        "with +ridge)."
    )
