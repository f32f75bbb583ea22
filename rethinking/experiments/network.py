"""The network that a config describes, with its optimizer, for resident and streamed data."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import models, sharding
from rethinking.errors import require
from rethinking.experiments import optimizers
from rethinking.models import adapters
from rethinking.models.adapters import Model
from rethinking.sharding import DataParallel
from rethinking.training import check, optim, steps
from rethinking.training.state import TrainState, initializer


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on its devices: how it starts, and how a batch changes it."""

    model: Model
    devices: DataParallel
    initialize: Callable  # seed -> the state before the first step
    train_step: Callable  # see `steps.make_train_step`
    learning_rate: optax.Schedule | None  # None: an optimizer of the user's own decides it

    def initial_state(self, seed: int) -> TrainState:
        """The state before the first step, on every device.

        Raises InputError if the devices have too little memory for it.
        """
        shapes = jax.eval_shape(self.initialize, jnp.uint32(seed))
        size = sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(shapes))
        sharding.require_memory(
            self.devices.mesh,
            size,
            "the network with its gradients",
            "smaller config.model.options, fewer config.workers, fewer config.num_devices",
        )
        return sharding.replicate(self.initialize(jnp.uint32(seed)), self.devices.mesh)


def build(
    config: ConfigDict,
    mesh: Mesh,
    example: jax.ShapeDtypeStruct,
    num_classes: int,
    num_train: int,
    steps_per_epoch: float | int,
    vocab_size: int | None = None,
) -> Network:
    """The network of `config` on the devices of `mesh`, for `num_train` training examples.

    `example` is the form of one example that the network sees. `vocab_size` is the number of
    tokens, if it is a sequence of these. Raises InputError for a batch size that does not fit, and
    for a network that cannot be made or cannot take such examples.
    """
    check_batch_size(config, num_train, mesh.size)
    devices = DataParallel(mesh)
    if vocab_size is None:
        _refuse_to_invent_tokens(config, example)
    alone = model = _model(config, example, num_classes, vocab_size, None)
    check_fields(config, model)
    if config.model.sync_batch_norm and devices.axis_name:
        model = _model(config, example, num_classes, vocab_size, devices.axis_name)
    check.check_model(model, example, num_classes, config.dtype, alone)
    rate, optimizer = optimizers.build(config, steps_per_epoch)
    averager = optim.moving_average(config.average_decay) if config.average_decay else None
    train_step = steps.make_train_step(
        model, optimizer, devices, config.batch_size, config.label_smoothing, averager
    )
    initialize = initializer(model, optimizer, example, averager)
    state = check.check_training(model, initialize, train_step, devices, example)
    if optimizers.is_own(config):
        optimizers.check(optimizer, state)
    check_effects(config, state)
    return Network(model, devices, initialize, train_step, rate)


def _refuse_to_invent_tokens(config: ConfigDict, example: jax.ShapeDtypeStruct) -> None:
    """Raises InputError for a network that needs a number of tokens. The examples have none."""
    name = config.model.name
    require(
        "vocab_size" not in models.required_fields(name),
        f"the network {name} needs vocab_size, which is given only for sequences of tokens, but "
        f"{config.data.name} has {check.in_words(example)}. Choose a set of token sequences, which "
        "are whole numbers [n, length] and not uint8. Or give vocab_size a default.",
    )


def _model(
    config: ConfigDict,
    example: jax.ShapeDtypeStruct,
    num_classes: int,
    vocab_size: int | None,
    axis_name: str | None,
) -> Model:
    """The network that the config names. Its batch norm averages over the axis, if there is one."""
    made = models.create(
        config.model.name,
        num_classes,
        jnp.dtype(config.dtype),
        axis_name,
        example.shape,
        vocab_size,
        **config.model.options,
    )
    return adapters.adapt(made)


def check_batch_size(config: ConfigDict, num_train: int, num_devices: int) -> None:
    """Raises InputError unless the examples fill a batch that the devices can share evenly."""
    require(
        config.batch_size % num_devices == 0,
        f"config.batch_size={config.batch_size} cannot be split evenly over {num_devices} devices. "
        f"Choose a multiple of {num_devices}, or set config.num_devices.",
    )
    require(
        config.batch_size <= num_train,
        f"config.batch_size={config.batch_size} is more than the {num_train} training examples. "
        "Choose a smaller one.",
    )


def check_fields(config: ConfigDict, model: Model) -> None:
    """Raises InputError for a setting that needs a field which the network does not have."""
    name, field = config.model.name, model.words.field
    fields = models.fields(name)
    require(
        config.dtype == "float32" or "dtype" in fields,
        f"config.dtype={config.dtype} has no effect on the network {name}, which has no "
        f"{field} dtype. Give it one and pass it on to its layers, or set config.dtype=float32.",
    )
    require(
        not config.model.sync_batch_norm or "bn_axis_name" in fields,
        f"config.model.sync_batch_norm=True has no effect on the network {name}, which has no "
        f"{field} bn_axis_name. Give it one and pass it to its batch norm as axis_name, or set "
        "config.model.sync_batch_norm=False.",
    )


def check_effects(config: ConfigDict, state: TrainState) -> None:
    """Raises InputError for a setting that acts on a part which the network does not have.

    `state` is that before the first step; its shapes are enough.
    """
    name = config.model.name
    require(
        not config.weight_decay or any(jax.tree.leaves(optim.decayed(state.params))),
        f"config.weight_decay={config.weight_decay} has no effect on the network {name}: none of "
        "its parameters has two or more dimensions. Set config.weight_decay=0.",
    )
    require(
        not config.model.sync_batch_norm or bool(state.model_state),
        f"config.model.sync_batch_norm=True has no effect on the network {name}, which has no "
        "batch norm. Set config.model.sync_batch_norm=False.",
    )
