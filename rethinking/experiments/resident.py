"""Training on data that stay on the devices, for small sets such as CIFAR10."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from rethinking import sharding
from rethinking.data import arrays, shifts
from rethinking.data.source import Info
from rethinking.experiments import data_set, devices, examples, network
from rethinking.experiments.network import Network
from rethinking.experiments.trainer import Leg, Trainer, choose_sample, copied
from rethinking.training import evaluate, margins, steps
from rethinking.training.state import TrainState

# Stored examples [n, ...] and labels [n], on every device: a split after `Programs.place`.
Examples = tuple[jax.Array, jax.Array]


class ResidentTrainer(Trainer):
    """Trains and evaluates on data that stay on the devices.

    A leg is an epoch, or a step where an epoch is not one program (`steps.use_scan`). An epoch that
    was begun by such steps ends by steps on any device.
    """

    def __init__(self, config: ConfigDict):
        """Checks the config against data, devices and network; then loads and places the data.

        Raises InputError for what cannot work, before the data are loaded.
        """
        data_dir = config.data.data_dir or None
        info = data_set.describe(config)
        shifts.check(config.eval.shifts, info, data_dir)
        self.programs = build(config, info, config.data.num_train or info.num_train)
        super().__init__(config, self.programs.network, self.programs.initial)
        dataset = examples.load(config)
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
        return epoch * self.programs.steps_per_epoch

    def leg_steps(self, step: int) -> int:
        """See `Trainer.leg_steps`."""
        is_whole = self.programs.is_one_program(step % self.programs.steps_per_epoch)
        return self.programs.steps_per_epoch if is_whole else 1

    def legs(self, state: TrainState, step: int) -> Iterator[Leg]:
        """Trains from `state` on, where `step` steps are done; yields each leg, without end."""
        epoch, done = divmod(step, self.programs.steps_per_epoch)
        while True:
            for leg in self.programs.train(
                state, self.train, self.indices, self.config.seed, epoch, done
            ):
                state = leg.state
                yield leg
            epoch, done = epoch + 1, 0

    @property
    def single_step(self) -> Callable:
        """See `Trainer.single_step`."""
        return self.programs.step

    def replay(self, step: int) -> Iterator[tuple]:
        """The arguments of the steps from `step` on, up to the end of its epoch."""
        number, done = divmod(step, self.programs.steps_per_epoch)
        seed, epoch = self.programs.scalar(self.config.seed), self.programs.scalar(number)
        for rows in self.programs.shuffle(self.train[1], seed, epoch)[done:]:
            yield (*self.train, self.indices, seed, epoch, rows)

    def rehearse(self, state: TrainState, step: int, num_steps: int) -> None:
        """Trains a copy of `state` on the first examples, as in an epoch of `num_steps` steps."""
        num = min(num_steps, self.programs.steps_per_epoch) * self.config.batch_size
        examples = self.train[0][:num], self.train[1][:num]
        epoch = step // self.programs.steps_per_epoch
        for leg in self.programs.train(
            copied(state), examples, self.indices[:num], self.config.seed, epoch
        ):
            jax.block_until_ready(leg.loss)

    def evaluate_split(
        self, state: TrainState, split: Examples, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Loss and accuracy on a split. One program computes them, so `stop` is never called."""
        return self.programs.evaluate(state, *split)

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

        test = self.programs.place(examples.load(config, shift).test)
        return self.programs.evaluate(state, *test)


@dataclasses.dataclass(frozen=True)
class Programs:
    """A network, and the programs that train and evaluate it on any examples.

    Each is compiled when it is first called.
    """

    network: Network
    initial: TrainState  # before the first step
    steps_per_epoch: int
    # (state, examples, labels, indices, seed, epoch) -> (state, mean loss of the steps); None if an
    # epoch is not one program
    train_epoch: Callable | None
    train_step: Callable  # `step`, compiled; it reuses the buffers of the state that it gets
    evaluate: Callable  # (state, examples, labels) -> {"loss": ..., "accuracy": ...} on the host
    logits: Callable  # (state, examples) -> [n, num_classes], in evaluation mode
    store: Callable  # examples of the data set -> stored examples
    shuffle: Callable  # (labels, seed, epoch) -> the rows of each step
    step: Callable  # see `steps.make_indexed_step`; not compiled

    def is_one_program(self, done: int) -> bool:
        """Whether the rest of an epoch, of which `done` steps are done, is one program."""
        return self.train_epoch is not None and done == 0

    def train(
        self,
        state: TrainState,
        examples: Examples,
        indices: jax.Array,
        seed: int,
        epoch: int,
        done: int = 0,
    ) -> Iterator[Leg]:
        """Trains for the rest of an epoch, of which `done` steps are done; yields each leg.

        Each leg reuses the buffers of the state before it, also those of `state`.
        """
        order = self.scalar(seed), self.scalar(epoch)
        if self.is_one_program(done):
            yield Leg(*self.train_epoch(state, *examples, indices, *order))
            return
        for rows in self.shuffle(examples[1], *order)[done:]:
            state, loss = self.train_step(state, *examples, indices, *order, rows)
            yield Leg(state, loss)

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.network.devices.mesh

    def place(self, split: arrays.Split) -> Examples:
        """Stored examples and labels, on every device."""
        return sharding.replicate((self.store(split.images), jnp.asarray(split.labels)), self.mesh)

    def place_indices(self, indices: np.ndarray) -> jax.Array:
        """Positions of examples in the source, on every device; augmentation depends on them."""
        return sharding.replicate(jnp.asarray(indices, jnp.uint32), self.mesh)

    def scalar(self, value: int) -> jax.Array:
        """A seed or an epoch, on every device."""
        return sharding.replicate(jnp.uint32(value), self.mesh)


def build(config: ConfigDict, info: Info, num_train: int) -> Programs:
    """The network of `config` and its programs, for `num_train` examples of the set `info`.

    Raises InputError for devices, a batch size, a network or an augmentation that cannot work.
    """
    net, seen = build_network(config, info, num_train, devices.mesh(config))
    initial = net.initial_state(config.seed)
    train_epoch = None
    if steps.use_scan(initial.params):
        train_epoch = steps.make_train_epoch(
            net.train_step, net.devices, config.batch_size, seen.train
        )
    step = steps.make_indexed_step(net.train_step, net.devices, config.batch_size, seen.train)
    return Programs(
        network=net,
        initial=initial,
        steps_per_epoch=num_train // config.batch_size,
        train_epoch=train_epoch,
        train_step=net.devices.compile(step, donate_argnums=(0,)),
        evaluate=evaluate.make_evaluate(net.model, net.devices, config.eval_batch_size, seen.test),
        logits=evaluate.make_logits(net.model, net.devices, config.eval_batch_size, seen.test),
        store=seen.store,
        shuffle=net.devices.compile(steps.make_shuffle(config.batch_size)),
        step=step,
    )


def build_network(
    config: ConfigDict, info: Info, num_train: int, mesh: Mesh
) -> tuple[Network, examples.Views]:
    """The network of `config` on the devices of `mesh`, and how it sees examples of the set `info`.

    Raises InputError for a batch size, a network or an augmentation that cannot work.
    """
    examples.check(config, info)
    net = network.build(
        config,
        mesh,
        examples.form(config, info),
        info.num_classes,
        num_train,
        num_train // config.batch_size,
        data_set.vocab_size(config) if info.kind == "tokens" else None,
    )
    seen = examples.views(config, info.kind)
    if info.kind == "image":
        examples.check_augmentation(config, seen, info.example_shape)
    return net, seen


def _chance(
    predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_classes: int
) -> float:
    """The mean accuracy of these predictions over all orders of the examples."""
    counts = [np.bincount(classes, minlength=num_classes) for classes in (predicted, labels)]
    return float((counts[0] / len(labels)) @ (counts[1] / len(labels)))


def _take(split: arrays.Split, chosen: np.ndarray) -> arrays.Split:
    return arrays.Split(split.images[chosen], split.labels[chosen], split.indices[chosen])
