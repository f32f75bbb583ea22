"""The networks of the experiments, by name."""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from rethinking.errors import InputError, nearest
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
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
    bn_axis_name: str | None = None,
    **options: Any,
) -> nn.Module:
    """The network called `name`: a key of `MODELS`, or `package.module:Class` for a Flax module of the user's own.

    Each takes images [batch, height, width, channels] and returns logits [batch, num_classes] as `model(x, train)`.
    `dtype` is that of the computation; parameters and logits are float32. `bn_axis_name` names the mapped axis over
    which batch norm averages its statistics; None: each device has those of its own batch. An own class gets, of
    num_classes, dtype and bn_axis_name, those that it has as fields. `options` are further fields, such as
    inception_v3's `dropout` and `aux_head`; with the latter it returns (logits, auxiliary logits) in training.
    Raises InputError for an unknown name, an option that the network does not have, and a class that cannot be
    imported, is no Flax module, or has further fields without a default.
    """
    constructor = _imported(name) if ":" in name else MODELS.get(name)
    if constructor is None:
        raise InputError(f"config.model.name={name}: unknown model. {nearest(name, MODELS)}")
    fields = {"num_classes": num_classes, "dtype": dtype, "bn_axis_name": bn_axis_name}
    signature = inspect.signature(constructor)
    fields = {
        field: value for field, value in fields.items() if field in signature.parameters
    } | options
    for option in options:
        if option not in signature.parameters:
            raise InputError(
                f"config.model.name={name}: the network has no field {option!r}. "
                f"{nearest(option, signature.parameters)} --config.model.options={{}} sets none."
            )
    try:
        signature.bind(**fields)
    except TypeError as error:
        raise InputError(f"config.model.name={name}: {error}; give that field a default") from error
    return constructor(**fields)


def _imported(name: str) -> type[nn.Module]:
    """The class `package.module:Class`."""
    problem = f"config.model.name={name}"
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise InputError(f"{problem}: write an own model as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"{problem}: importing {module_name} failed ({error}). "
            "Install it, or run from (or add to PYTHONPATH) the folder that holds it."
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_module(value)]
        candidates = (
            nearest(class_name, classes) if classes else "It defines no flax.linen.Module at all."
        )
        raise InputError(f"{problem}: {module_name} has no {class_name}. {candidates}")
    if not _is_module(found):
        raise InputError(
            f"{problem}: {class_name} is no class derived from flax.linen.Module. Derive it from that."
        )
    return found


def _is_module(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
