"""Training on images that are read from disk batch by batch: Inception V3 on ImageNet (Table 2)."""

import collections
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import randomize, sharding
from rethinking.data import images, source, stream
from rethinking.errors import InputError
from rethinking.experiments import network
from rethinking.experiments.trainer import Experiment, Interrupted, Leg, log_parameters
from rethinking.training import evaluate, measures, steps

# Batches that are on their way to the devices while one is trained on.
PREFETCH = 2


@dataclasses.dataclass(frozen=True)
class Programs:
    """A network's start and the programs that train and evaluate it on a batch, each compiled when first called.

    A batch is a `stream.Batch` as `place` leaves it, split over all devices.
    """

    mesh: Mesh
    initialize: Callable  # seed -> state
    train_step: Callable  # (state, batch, seed) -> (state, loss)
    evaluate: Callable  # (state, batch) -> sums of what is measured, and of the weights
    learning_rate: optax.Schedule


def build(config: ConfigDict, mesh: Mesh, num_train: int, num_classes: int) -> Programs:
    """The network of `config` and its programs on the devices of `mesh`, for `num_train` training images.

    Raises InputError for a batch size or a network that cannot work.
    """
    devices = sharding.DataParallel(mesh)
    network.check_batch_size(config, num_train, mesh.size)
    size = config.data.image_size
    made = network.make(
        config, devices, (size, size, 3), num_classes, num_train / config.batch_size
    )
    view = functools.partial(images.distort, settings=config.augment)
    return Programs(
        mesh=mesh,
        initialize=made.initialize,
        train_step=steps.make_streamed_step(made.train_step, devices, view),
        evaluate=evaluate.make_evaluate_batch(made.model, devices, images.center),
        learning_rate=made.learning_rate,
    )


def prepare(config: ConfigDict) -> Experiment:
    """Checks the config against data, devices and network, and opens the data, of which none is in memory."""
    data = config.data
    stream.check(data.name, data.data_dir or None)
    mesh = sharding.data_mesh(config.num_devices)
    dataset = stream.load(
        data.name, data.data_dir or None, data.num_train, config.seed, data.num_test
    )
    num_train = len(dataset.train)
    programs = build(config, mesh, num_train, dataset.num_classes)
    state = sharding.replicate(programs.initialize(jnp.uint32(config.seed)), mesh)
    log_parameters(config, state.params)
    seed = sharding.replicate(np.uint32(config.seed), mesh)
    corrupt = randomize.label_corruption(
        int(dataset.train.indices.max()) + 1,
        dataset.num_classes,
        config.randomize.labels,
        config.randomize.seed,
    )
    train = on_the_way = dataclasses.replace(dataset.train, corrupt=corrupt)
    if 0 < config.eval.num_train < num_train:
        chosen = np.sort(source.subset(num_train, config.eval.num_train, config.seed))
        on_the_way = dataclasses.replace(train, indices=train.indices[chosen])
    reading = functools.partial(
        stream.Reading,
        num_threads=data.num_threads,
        num_workers=data.num_workers,
        skip_bad=data.skip_bad,
    )
    train_reading = reading(sharding.local_rows(config.batch_size, mesh))
    eval_batch_size = config.eval_batch_size * mesh.size
    eval_reading = reading(sharding.local_rows(eval_batch_size, mesh))

    def legs(state, step) -> Iterator[Leg]:
        batches = stream.train_batches(
            train,
            config.batch_size,
            data.image_size,
            config.seed,
            config.augment.crop,
            train_reading,
            step,
        )
        with contextlib.closing(batches):
            for batch in placed(batches, mesh):
                state, loss = programs.train_step(state, batch, seed)
                yield Leg(state, loss)

    def evaluate_split(state, split, stop) -> dict[str, float]:
        sums = []
        with contextlib.closing(
            stream.eval_batches(split, eval_batch_size, data.image_size, eval_reading)
        ) as batches:
            for number, batch in enumerate(placed(batches, mesh)):
                if stop(number):
                    raise Interrupted
                sums.append(programs.evaluate(state, batch))
                jax.block_until_ready(sums[-2:][0])  # a single batch ahead of the devices
        total = {name: sum(float(batch[name]) for batch in sums) for name in sums[0]}
        count = total.pop("weight")
        if not count:
            raise InputError(
                f"none of the {len(split)} images of a split can be read, and config.data.skip_bad "
                "leaves all of them out. `python -m rethinking.data.prepare` makes them anew."
            )
        return {name: value / count for name, value in total.items()} | {
            "skipped": len(split) - round(count)
        }

    def evaluate_both(state, whole, stop) -> dict[str, float]:
        splits = {"train": train if whole else on_the_way, "test": dataset.test}
        measured = {name: evaluate_split(state, split, stop) for name, split in splits.items()}
        return {
            f"{split}_{name}": value
            for split in measured
            for name, value in measured[split].items()
        }

    return Experiment(
        state=state,
        steps_per_leg=1,
        last_step=lambda epoch: math.ceil(epoch * num_train / config.batch_size),
        legs=legs,
        evaluate=evaluate_both,
        learning_rate=programs.learning_rate,
        measure_at_end=lambda state: measures.norms(state.evaluated["params"]),
    )


def placed(batches: Iterable[stream.Batch], mesh: Mesh) -> Iterator[stream.Batch]:
    """Batches on the devices of `mesh`, each process having given its rows; `PREFETCH` are on their way at a time."""
    waiting = collections.deque()
    for batch in batches:
        # 32 bits are what devices index with; padding's index -1 becomes one that no draw is ever used of.
        narrow = batch._replace(
            indices=batch.indices.astype(np.uint32), epochs=batch.epochs.astype(np.uint32)
        )
        waiting.append(sharding.split(narrow, mesh))
        if len(waiting) > PREFETCH:
            yield waiting.popleft()
    yield from waiting
