"""Training on data that stay on the device: an epoch is one program. For sets that fit, such as CIFAR10."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import randomize, sharding
from rethinking.data import arrays, images, shifts, source
from rethinking.data.source import Dataset, Info
from rethinking.experiments import network
from rethinking.experiments.trainer import Experiment, Leg, log_parameters
from rethinking.training import evaluate, measures, state, steps


@dataclasses.dataclass(frozen=True)
class Programs:
    """A network's start and the programs that train and evaluate it on any examples, each compiled when first called.

    Examples are what `place` makes of a split: stored images [n, h, w, c] and labels [n], on every device.
    """

    mesh: Mesh
    initial: state.TrainState
    steps_per_epoch: int
    train_epoch: (
        Callable  # (state, images, labels, indices, seed, epoch) -> (state, mean loss of the steps)
    )
    evaluate: Callable  # (state, images, labels) -> {"loss": ..., "accuracy": ...}
    logits: Callable  # (state, images) -> [n, num_classes], in evaluation mode
    learning_rate: optax.Schedule
    store: Callable  # images of the data set -> as they are stored

    def place(self, split: arrays.Split) -> tuple[jax.Array, jax.Array]:
        """Stored images and labels, on every device."""
        return sharding.replicate((self.store(split.images), jnp.asarray(split.labels)), self.mesh)

    def scalar(self, value: int) -> jax.Array:
        """A seed or an epoch, on every device."""
        return sharding.replicate(jnp.uint32(value), self.mesh)


def build(config: ConfigDict, info: Info, num_train: int) -> Programs:
    """The network of `config` and its programs, for `num_train` training images of a set described by `info`.

    Raises InputError for devices, batch size or network that cannot work.
    """
    mesh = sharding.data_mesh(config.num_devices)
    devices = sharding.DataParallel(mesh)
    network.check_batch_size(config, num_train, mesh.size)
    image_shape = images.center_crop(
        jnp.zeros((1, *info.image_shape), jnp.uint8), config.data.crop_size
    ).shape[1:]
    steps_per_epoch = num_train // config.batch_size
    made = network.make(config, devices, image_shape, info.num_classes, steps_per_epoch)
    initial = sharding.replicate(made.initialize(jnp.uint32(config.seed)), mesh)
    train_view, test_view, store = views(config)
    jax.eval_shape(
        lambda images: train_view(store(images), jax.random.split(jax.random.key(0))),
        jax.ShapeDtypeStruct((2, *info.image_shape), jnp.uint8),
    )  # refuses what cannot be augmented
    return Programs(
        mesh=mesh,
        initial=initial,
        steps_per_epoch=steps_per_epoch,
        train_epoch=steps.make_train_epoch(
            made.train_step, devices, config.batch_size, train_view, steps.use_scan(initial.params)
        ),
        evaluate=evaluate.make_evaluate(made.model, devices, config.eval_batch_size, test_view),
        logits=evaluate.make_logits(made.model, devices, config.eval_batch_size, test_view),
        learning_rate=made.learning_rate,
        store=store,
    )


def prepare(config: ConfigDict) -> Experiment:
    """Checks the config against data, devices and network, then loads, corrupts and places."""
    data_dir = config.data.data_dir or None
    info = arrays.describe(config.data.name, data_dir)
    shifts.check(config.eval.shifts, info, data_dir)
    programs = build(config, info, config.data.num_train or info.num_train)
    log_parameters(config, programs.initial.params)
    dataset = load_data(config)
    train, test = programs.place(dataset.train), programs.place(dataset.test)
    on_the_way = train
    if 0 < config.eval.num_train < len(dataset.train.labels):
        chosen = source.subset(len(dataset.train.labels), config.eval.num_train, config.seed)
        split = dataset.train
        on_the_way = programs.place(
            arrays.Split(split.images[chosen], split.labels[chosen], split.indices[chosen])
        )
    indices = sharding.replicate(jnp.asarray(dataset.train.indices, jnp.uint32), programs.mesh)
    seed = programs.scalar(config.seed)

    def legs(state, step) -> Iterator[Leg]:
        for epoch in itertools.count(step // programs.steps_per_epoch):
            state, loss = programs.train_epoch(state, *train, indices, seed, programs.scalar(epoch))
            yield Leg(state, loss)

    def evaluate_both(state, whole, stop):
        splits = {"train": train if whole else on_the_way, "test": test}
        values = {split: programs.evaluate(state, *examples) for split, examples in splits.items()}
        return {
            f"{split}_{name}": float(value)
            for split in values
            for name, value in values[split].items()
        }

    def evaluate_shift(state, name: str) -> dict[str, float]:
        shifted = load_data(
            config, lambda test: shifts.build(name, test, config.seed, data_dir)
        ).test
        values = programs.evaluate(state, *programs.place(shifted))
        return {field: float(value) for field, value in values.items()}

    def measure_at_end(state):
        measured = measures.measures(
            state.evaluated["params"], programs.logits(state, train[0]), dataset.train.labels
        )
        shifted = {name: evaluate_shift(state, name) for name in shifts.parse(config.eval.shifts)}
        return measured | ({"shifts": shifted} if shifted else {})

    return Experiment(
        state=programs.initial,
        steps_per_leg=programs.steps_per_epoch,
        last_step=lambda epoch: epoch * programs.steps_per_epoch,
        legs=legs,
        evaluate=evaluate_both,
        learning_rate=programs.learning_rate,
        measure_at_end=measure_at_end,
    )


def load_data(
    config: ConfigDict, change_test: Callable[[arrays.Split], arrays.Split] | None = None
) -> Dataset[arrays.Split]:
    """The data with its corruption, which acts on what the network sees: after the centre crop, before whitening.

    `change_test` makes another test set of the whole images first.
    """
    data = config.data
    dataset = arrays.load(
        data.name, data.data_dir or None, data.num_train, config.seed, data.num_test
    )
    if change_test:
        dataset = dataclasses.replace(dataset, test=change_test(dataset.test))
    if not config.augment.crop:
        crop = functools.partial(images.center_crop, size=config.data.crop_size)
        dataset = dataclasses.replace(
            dataset,
            **{
                name: dataclasses.replace(split, images=crop(split.images))
                for name, split in (("train", dataset.train), ("test", dataset.test))
            },
        )
    return randomize.apply(
        dataset, config.randomize.labels, config.randomize.pixels, config.randomize.seed
    )


def views(config: ConfigDict) -> tuple[Callable, Callable, Callable]:
    """Three functions: stored images and keys -> what the network sees in training; stored images -> what it sees in
    evaluation; images of the data set -> stored images. Without augmentation all is done once, before storing."""
    whiten = images.whiten if config.data.whiten else images.scale

    def see(raw):
        return whiten(images.center_crop(raw, config.data.crop_size))

    def see_augmented(raw, keys):
        return whiten(images.augment(raw, keys, config.data.crop_size, config.augment))

    if any(config.augment.values()):
        return see_augmented, see, jnp.asarray
    return lambda stored, keys: stored, lambda stored: stored, jax.jit(see)
