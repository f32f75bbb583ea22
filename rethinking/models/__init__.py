"""The networks of the experiments, by name."""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from rethinking import failures, own_code
from rethinking.errors import InputError, nearest, require_known
from rethinking.models.alexnet import AlexNet
from rethinking.models.inception import Inception
from rethinking.models.inception_v3 import InceptionV3
from rethinking.models.mlp import MLP
from rethinking.models.wide_resnet import WideResNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "inception": Inception,
    "inception_no_bn": partial(Inception, batch_norm=False),
    "inception_v3": InceptionV3,
    "alexnet": AlexNet,
    "mlp_1x512": partial(MLP, depth=1),
    "mlp_3x512": partial(MLP, depth=3),
    "wide_resnet_28_1": partial(WideResNet, depth=28, widening=1),
}


def create(
    name: str,
    /,
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
    bn_axis_name: str | None = None,
    vocab_size: int | None = None,
    **options: Any,
) -> nn.Module:
    """The network called `name`. `model(x, train)` returns the logits of images x.

    The images are [batch, height, width, channels], the logits [batch, num_classes]. With the
    option `aux_head`, inception_v3 returns (logits, auxiliary logits) in training.

    Args:
        name: a key of `MODELS`, or `package.module:Class` for a Flax module of the user's own.
        num_classes: number of classes.
        dtype: of the computation. Parameters and logits are float32.
        bn_axis_name: the mapped axis over which batch norm averages its statistics. If it is None,
            each device has the statistics of its own batch.
        vocab_size: number of tokens; None if the examples are not sequences of tokens.
        **options: further fields of the network, such as inception_v3's `dropout` and `aux_head`.

    A user's own class need not have all of the fields num_classes, dtype, bn_axis_name and
    vocab_size. It gets those that it has.

    Raises:
        InputError: if the name is unknown; if the network does not have an option; or if the class
            cannot be imported, is not a Flax module, or has other fields without a default.
    """
    constructor = _constructor(name)
    parameters = fields(name)
    for option in options:
        if option not in parameters:
            raise InputError(
                f"The network {name} has no option {option!r}. {nearest(option, parameters)} "
                "Remove it from the options; {} sets none."
            )
    given = dict(options)
    common = {"num_classes": num_classes, "dtype": dtype, "bn_axis_name": bn_axis_name}
    if vocab_size is not None:
        common["vocab_size"] = vocab_size
    for field, value in common.items():
        if field in parameters:
            given.setdefault(field, value)
    try:
        inspect.signature(constructor).bind(**given)
    except TypeError as error:
        raise InputError(
            f"The network {name} cannot be built: {error}. Give that field a default."
        ) from error
    try:
        return constructor(**given)
    except Exception as error:  # The class may be the user's own and raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} The network {name} cannot be built. Correct it "
            "there, or change config.model.options."
        ) from error


def fields(name: str) -> list[str]:
    """The fields of the network called `name`. Raises InputError as `create` does."""
    parameters = inspect.signature(_constructor(name)).parameters
    # Flax's own fields: a network that is not part of another needs neither.
    return [field for field in parameters if field not in ("name", "parent")]


def _constructor(name: str) -> Callable[..., nn.Module]:
    if ":" in name:
        return _load_class(name)
    require_known(name, MODELS, "Unknown network")
    return MODELS[name]


def _load_class(name: str) -> type[nn.Module]:
    """The class `package.module:Class`, imported."""
    problem = f"The network {name} cannot be used"
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise InputError(f"{problem}: write the name as package.module:Class.")
    own_code.search_working_directory()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{problem}: importing {module_name} failed ({error}). Install it, or run from the "
            "folder that holds it, or add that folder to PYTHONPATH."
        ) from error
    except Exception as error:  # The file is the user's own and may raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} {problem}, because importing {module_name} failed. "
            "Correct it there."
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_module(value)]
        remedy = "It defines no flax.linen.Module. Name another module."
        if classes:
            remedy = nearest(class_name, classes)
        raise InputError(f"{problem}: {module_name} has no {class_name}. {remedy}")
    if not _is_module(found):
        raise InputError(
            f"{problem}: {class_name} is not a class derived from flax.linen.Module. "
            "Derive it from that."
        )
    return found


def _is_module(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
