"""Training on data that stay on the devices, for small sets such as CIFAR10."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from rethinking import randomize, sharding
from rethinking.data import arrays, images, shifts
from rethinking.data.source import Dataset, Info
from rethinking.errors import require
from rethinking.experiments import data_set, network
from rethinking.experiments.network import Network
from rethinking.experiments.trainer import Leg, Trainer, choose_sample
from rethinking.training import evaluate, margins, steps
from rethinking.training.state import TrainState

# Stored images [n, h, w, c] and labels [n], on every device: a split after `Programs.place`.
Examples = tuple[jax.Array, jax.Array]


class ResidentTrainer(Trainer):
    """Trains and evaluates on data that stay on the devices. A leg is an epoch."""

    def __init__(self, config: ConfigDict):
        """Checks the config against data, devices and network; then loads and places the data.

        Raises InputError for what cannot work, before the data are loaded.
        """
        data_dir = config.data.data_dir or None
        info = data_set.describe(config)
        shifts.check(config.eval.shifts, info, data_dir)
        self.programs = build(config, info, config.data.num_train or info.num_train)
        super().__init__(
            config, self.programs.network, self.programs.initial, self.programs.steps_per_epoch
        )
        dataset = load_data(config)
        self.eval_split = dataset.eval_split
        self.train = self.programs.place(dataset.train)
        self.test = self.programs.place(dataset.test)
        sample = choose_sample(config, len(dataset.train.labels))
        self.train_sample = self.train
        if sample is not None:
            self.train_sample = self.programs.place(_take(dataset.train, sample))
        self.labels = dataset.train.labels
        self.num_classes = dataset.num_classes
        self.test_labels = dataset.test.labels
        self.indices = self.programs.place_indices(dataset.train.indices)

    def last_step(self, epoch: int) -> int:
        """The number of steps at the end of `epoch` epochs; an epoch has whole batches only."""
        return epoch * self.steps_per_leg

    def legs(self, state: TrainState, step: int) -> Iterator[Leg]:
        """Trains from `state` on, where `step` steps are done; yields each epoch, without end."""
        seed = self.programs.scalar(self.config.seed)
        for epoch in itertools.count(step // self.steps_per_leg):
            state, loss = self.programs.train_epoch(
                state, *self.train, self.indices, seed, self.programs.scalar(epoch)
            )
            yield Leg(state, loss)

    def evaluate_split(
        self, state: TrainState, split: Examples, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Loss and accuracy on a split. One program computes them, so `stop` is never called."""
        return self._evaluate(state, split)

    def result_fields(self, state: TrainState) -> dict[str, Any]:
        """Sizes of the data, norms, margins; and, under "shifts", accuracy on those test sets."""
        logits = self.programs.logits(state, self.train[0])
        fields: dict[str, Any] = {
            "num_classes": self.num_classes,
            "num_test": len(self.test_labels),
        }
        if self.config.randomize.labels == 1:
            predicted = np.asarray(self.programs.logits(state, self.test[0]).argmax(axis=1))
            fields["chance_accuracy"] = _chance(predicted, self.test_labels, self.num_classes)
        fields |= margins.norms_and_margins(state.evaluated["params"], logits, self.labels)
        shifted = {}
        for name in shifts.parse(self.config.eval.shifts):
            shifted[name] = self._evaluate_shift(state, name)
        if shifted:
            fields["shifts"] = shifted
        return fields

    def _evaluate_shift(self, state: TrainState, name: str) -> dict[str, float]:
        config = self.config

        def shift(test: arrays.Split) -> arrays.Split:
            return shifts.build(name, test, config.seed, config.data.data_dir or None)

        return self._evaluate(state, self.programs.place(load_data(config, shift).test))

    def _evaluate(self, state: TrainState, examples: Examples) -> dict[str, float]:
        fields = self.programs.evaluate(state, *examples)
        return {name: float(value) for name, value in fields.items()}


@dataclasses.dataclass(frozen=True)
class Programs:
    """A network, and the programs that train and evaluate it on any examples.

    Each program is compiled when it is first called.
    """

    network: Network
    initial: TrainState  # before the first step
    steps_per_epoch: int
    train_epoch: Callable  # (state, images, labels, indices, seed, epoch) -> (state, mean loss)
    evaluate: Callable  # (state, images, labels) -> {"loss": ..., "accuracy": ...}
    logits: Callable  # (state, images) -> [n, num_classes], in evaluation mode
    store: Callable  # images of the data set -> stored images

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.network.devices.mesh

    def place(self, split: arrays.Split) -> Examples:
        """Stored images and labels, on every device."""
        return sharding.replicate((self.store(split.images), jnp.asarray(split.labels)), self.mesh)

    def place_indices(self, indices: np.ndarray) -> jax.Array:
        """Positions of examples in the source, on every device; augmentation depends on them."""
        return sharding.replicate(jnp.asarray(indices, jnp.uint32), self.mesh)

    def scalar(self, value: int) -> jax.Array:
        """A seed or an epoch, on every device."""
        return sharding.replicate(jnp.uint32(value), self.mesh)


def build(config: ConfigDict, info: Info, num_train: int) -> Programs:
    """The network of `config` and its programs, for `num_train` training images of the set `info`.

    Raises InputError for devices, a batch size, a network or an augmentation that cannot work.
    """
    mesh = sharding.device_mesh(config.num_devices)
    blank = jnp.zeros((1, *info.example_shape), jnp.uint8)
    shape = images.center_crop(blank, config.data.crop_size).shape[1:]
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    steps_per_epoch = num_train // config.batch_size
    net = network.build(config, mesh, example, info.num_classes, num_train, steps_per_epoch)
    train_view, test_view, store = views(config)
    check_augmentation(train_view, store, info.example_shape)
    height, width, _ = info.example_shape
    require(
        not config.augment.crop or (height, width) != (config.data.crop_size,) * 2,
        f"config.augment.crop=True has no effect: a crop of config.data.crop_size="
        f"{config.data.crop_size} is the whole image. Choose a smaller crop, or set "
        "config.augment.crop=False.",
    )
    initial = net.initial_state(config.seed)
    scan = steps.use_scan(initial.params)
    return Programs(
        network=net,
        initial=initial,
        steps_per_epoch=steps_per_epoch,
        train_epoch=steps.make_train_epoch(
            net.train_step, net.devices, config.batch_size, train_view, scan
        ),
        evaluate=evaluate.make_evaluate(net.model, net.devices, config.eval_batch_size, test_view),
        logits=evaluate.make_logits(net.model, net.devices, config.eval_batch_size, test_view),
        store=store,
    )


class Views(NamedTuple):
    """How images become what the network sees."""

    train: Callable  # (stored images, keys) -> what the network sees in training
    test: Callable  # stored images -> what the network sees in evaluation
    store: Callable  # images of the data set -> stored images


def views(config: ConfigDict) -> Views:
    """The views of `config`. Without augmentation, cropping and whitening come before storing."""
    whiten = images.whiten if config.data.whiten else images.scale
    size = config.data.crop_size
    augmentation = config.augment.to_dict()

    def see(raw):
        return whiten(images.center_crop(raw, size))

    def see_augmented(raw, keys):
        return whiten(images.augment(raw, keys, size, augmentation))

    if any(augmentation.values()):
        return Views(see_augmented, see, jnp.asarray)
    return Views(lambda stored, keys: stored, lambda stored: stored, jax.jit(see))


def check_augmentation(train_view: Callable, store: Callable, image_shape: tuple[int, ...]) -> None:
    """Raises InputError if images of `image_shape` cannot be augmented; computes nothing."""
    batch = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    jax.eval_shape(lambda raw: train_view(store(raw), jax.random.split(jax.random.key(0))), batch)


def load_data(
    config: ConfigDict, change_test: Callable[[arrays.Split], arrays.Split] | None = None
) -> Dataset[arrays.Split]:
    """The data with its corruption, which comes after the centre crop and before whitening.

    `change_test` replaces the test set before that, while its images are whole.
    """
    data = config.data
    dataset = data_set.load(config)
    train, test = dataset.train, dataset.test
    if change_test is not None:
        test = change_test(test)
    if not config.augment.crop:
        train = _center_crop(train, data.crop_size)
        test = _center_crop(test, data.crop_size)
    return randomize.apply(
        dataclasses.replace(dataset, train=train, test=test),
        config.randomize.labels,
        config.randomize.pixels,
        config.randomize.seed,
    )


def _chance(
    predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_classes: int
) -> float:
    """The mean accuracy of these predictions over all orders of the examples."""
    counts = [np.bincount(classes, minlength=num_classes) for classes in (predicted, labels)]
    return float((counts[0] / len(labels)) @ (counts[1] / len(labels)))


def _center_crop(split: arrays.Split, size: int) -> arrays.Split:
    return dataclasses.replace(split, images=images.center_crop(split.images, size))


def _take(split: arrays.Split, chosen: np.ndarray) -> arrays.Split:
    return arrays.Split(split.images[chosen], split.labels[chosen], split.indices[chosen])
