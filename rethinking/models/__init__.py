"""The networks of the experiments, by name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax.typing import DTypeLike

from rethinking import failures, own_code
from rethinking.errors import InputError, nearest, require, require_known
from rethinking.models.adapters import Functions
from rethinking.models.alexnet import AlexNet
from rethinking.models.inception import Inception
from rethinking.models.inception_v3 import InceptionV3
from rethinking.models.mlp import MLP
from rethinking.models.resnet import ResNet
from rethinking.models.vision_transformer import VisionTransformer
from rethinking.models.wide_resnet import WideResNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "inception": Inception,
    "inception_no_bn": partial(Inception, batch_norm=False),
    "inception_v3": InceptionV3,
    "alexnet": AlexNet,
    "mlp_1x512": partial(MLP, depth=1),
    "mlp_3x512": partial(MLP, depth=3),
    "wide_resnet_28_1": partial(WideResNet, depth=28, widening=1),
    "resnet_18": ResNet,
    "vit_patch4": VisionTransformer,
}


def create(
    name: str,
    /,
    num_classes: int,
    dtype: DTypeLike = jnp.float32,
    bn_axis_name: str | None = None,
    example_shape: tuple[int, ...] | None = None,
    vocab_size: int | None = None,
    **options: Any,
) -> nn.Module | partial | Functions:
    """The network called `name`, as its library has it. Training uses it through `adapters.adapt`.

    It returns logits [batch, num_classes] for examples [batch, ...]. This project's own networks
    are Flax Linen modules, called as `model(x, train)` on images [batch, height, width, channels].
    With the option `aux_head`, inception_v3 returns (logits, auxiliary logits) in training.

    Args:
        name: a key of `MODELS`, or `package.module:NAME` for a network of the user's own: a class
            of flax.linen or flax.nnx, or an object, or a class of objects, as `Functions`
            describes them. A class of flax.nnx is returned with its arguments, and not constructed,
            because it draws its initial values when it is constructed.
        num_classes: number of classes.
        dtype: of the computation. Parameters and logits are float32.
        bn_axis_name: the mapped axis over which batch norm averages its statistics. If it is None,
            each device has the statistics of its own batch.
        example_shape: shape of one example, without the batch.
        vocab_size: number of tokens; None if the examples are not sequences of tokens.
        **options: further fields of the network, such as inception_v3's `dropout` and `aux_head`.

    A user's own network need not have all of the fields num_classes, dtype, bn_axis_name,
    example_shape and vocab_size. It gets those that it has.

    Raises:
        InputError: if the name is unknown; if the network does not have an option; or if NAME
            cannot be imported, is not a network, or has other fields without a default.
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
    if example_shape is not None:
        common["example_shape"] = example_shape
    if vocab_size is not None:
        common["vocab_size"] = vocab_size
    for field, value in common.items():
        if field in parameters:
            given.setdefault(field, value)
    streams = {"rngs": None} if _is_nnx(constructor) else {}
    try:
        _signature(constructor).bind(**given, **streams)
    except TypeError as error:
        raise InputError(
            f"The network {name} cannot be built: {error}. {_missing(error)}"
        ) from error
    if _is_nnx(constructor):
        return partial(constructor, **given)
    try:
        return constructor(**given)
    except Exception as error:  # The class may be the user's own and raise anything.
        raise InputError(
            f"{failures.placed_summary(error)} The network {name} cannot be built. Correct it "
            "there, or change config.model.options."
        ) from error


def _missing(error: TypeError) -> str:
    """What to do about a constructor that cannot be called."""
    if "unexpected keyword argument 'rngs'" in str(error):
        return "Its initial values are drawn from `rngs`. Define def __init__(self, ..., rngs)."
    return "Give that field a default."


def fields(name: str) -> list[str]:
    """The fields of the network called `name`. Raises InputError as `create` does."""
    return [each.name for each in _parameters(name)]


def required_fields(name: str) -> list[str]:
    """Those of `fields` that have no default."""
    return [each.name for each in _parameters(name) if each.default is each.empty]


def _parameters(name: str) -> list[inspect.Parameter]:
    constructor = _constructor(name)
    # Flax's own fields: a network that is not part of another needs neither name nor parent.
    flax_fields = ("rngs",) if _is_nnx(constructor) else ("name", "parent")
    found = []
    for each in _signature(constructor).parameters.values():
        takes_any = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if not takes_any and each.name not in flax_fields:
            found.append(each)
    return found


def _signature(constructor: Callable[..., Any]) -> inspect.Signature:
    """What a network is constructed with."""
    if not _is_nnx(constructor):
        return inspect.signature(constructor)
    # The metaclass of nnx.Module hides the signature.
    signature = inspect.signature(constructor.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _constructor(name: str) -> Callable[..., Any]:
    if ":" in name:
        return _load(name)
    require_known(name, MODELS, "Unknown network")
    return MODELS[name]


def _load(name: str) -> Callable[..., Any]:
    """What constructs the network `package.module:NAME`, imported."""
    found = own_code.load(name, "network", _is_network)
    own_name = name.partition(":")[2]
    problem = f"The network {name} cannot be used"
    require(
        not isinstance(found, nnx.Module),
        f"{problem}: {own_name} has its values already, but each seed draws its own. Name its "
        f"class {type(found).__name__}.",
    )
    require(
        _is_network(found),
        f"{problem}: {own_name} is not a network. Name a class derived from flax.linen.Module or "
        "flax.nnx.Module, or an object with init(key, x) and apply(variables, x, train, key).",
    )
    return found if isinstance(found, type) else lambda: found


def _is_network(value: object) -> bool:
    is_class = isinstance(value, type) and issubclass(value, (nn.Module, nnx.Module))
    return is_class or (isinstance(value, Functions) and not inspect.ismodule(value))


def _is_nnx(constructor: Callable[..., Any]) -> bool:
    return isinstance(constructor, type) and issubclass(constructor, nnx.Module)
