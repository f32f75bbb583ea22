"""Training on images that are read from disk batch by batch: Inception V3 on ImageNet (Table 2)."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import distributed, randomize, sharding
from rethinking.data import images, pipeline, readers, stream
from rethinking.data.source import Dataset
from rethinking.errors import require
from rethinking.experiments import data_set, devices, network
from rethinking.experiments.network import Network
from rethinking.experiments.trainer import Interrupted, Leg, Trainer, choose_sample, copied
from rethinking.experiments.training_fields import FIELDS
from rethinking.experiments.waiting import Waiting
from rethinking.training import evaluate, margins, steps
from rethinking.training.state import TrainState

_LOG = logging.getLogger(__name__)
# Batches that are on their way to the devices while one is trained on.
PREFETCH = 2


class StreamedTrainer(Trainer):
    """Trains and evaluates on images that are read from disk. A leg is a step."""

    split_argnums = (1,)

    def __init__(self, config: ConfigDict):
        """Checks the config against data, devices and network; reads no image yet.

        Raises InputError for what cannot work.
        """
        stream.check(config.data.name, config.data.data_dir or None, data_set.evaluation(config))
        self.mesh = devices.mesh(config)
        self._reading = functools.partial(_reading, config, self.mesh, distributed.share_of_cores())
        dataset = load_data(config)
        self.eval_split = dataset.eval_split
        self.num_train = len(dataset.train)
        self.num_classes = dataset.num_classes
        # The same for all splits, so that the program of an evaluation is compiled once.
        self.eval_rows = _eval_rows(config, self.mesh, max(self.num_train, len(dataset.test)))
        net = build_network(config, self.mesh, self.num_train, dataset.num_classes)
        reading = self._reading(config.batch_size)
        _require_memory(config, self.mesh, self.eval_rows, reading.num_threads)
        super().__init__(config, net, net.initial_state(config.seed))
        _LOG.info("%d threads read images, in %s.", reading.num_threads, _processes(reading))
        self.train_step = build_train_step(config, net)
        self.single_step = steps.make_batch_step(net.train_step, net.devices, _view(config))
        self.evaluate_batch = evaluate.make_evaluate_batch(net.model, net.devices, images.center)
        self.train = dataset.train
        self.test = dataset.test
        self.train_sample = self.train
        sample = choose_sample(config, self.num_train)
        if sample is not None:
            indices = self.train.indices[np.sort(sample)]
            self.train_sample = dataclasses.replace(self.train, indices=indices)

    def last_step(self, epoch: int) -> int:
        """The number of steps at the end of `epoch` epochs; a batch may span two epochs."""
        return math.ceil(epoch * self.num_train / self.config.batch_size)

    def leg_steps(self, step: int) -> int:
        """See `Trainer.leg_steps`."""
        return 1

    def legs(self, state: TrainState, step: int) -> Iterator[Leg]:
        """Trains from `state` on, where `step` steps are done; yields each step, without end."""
        seed = sharding.replicate(np.uint32(self.config.seed), self.mesh)
        batches = self._batches(step)
        with contextlib.closing(batches), contextlib.closing(Waiting()) as waiting:
            for batch in place_batches(waiting.timed(batches), self.mesh):
                state, loss = self.train_step(state, batch, seed)
                waiting.follow(loss)
                yield Leg(state, loss, waiting.take())

    def replay(self, step: int) -> Iterator[tuple]:
        """The batch of each step from `step` on, without end, and the seed."""
        seed = sharding.replicate(np.uint32(self.config.seed), self.mesh)
        batches = self._batches(step)
        with contextlib.closing(batches):
            for batch in place_batches(batches, self.mesh):
                yield batch, seed

    def rehearse(self, state: TrainState, step: int, num_steps: int) -> None:
        """Trains a copy of `state` on the next batches, which are read again for it."""
        with contextlib.closing(self.legs(copied(state), step)) as legs:
            for number, leg in enumerate(itertools.islice(legs, num_steps)):
                with jax.profiler.StepTraceAnnotation("train", step_num=step + number):
                    jax.block_until_ready(leg.loss)

    def evaluate_split(
        self, state: TrainState, split: stream.Split, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Loss, accuracy and top-5 accuracy on a split, and the number of images "skipped".

        Calls `stop` before each batch; raises Interrupted if the answer is true. Raises InputError
        if no image of the split can be read.
        """
        batches = stream.eval_batches(
            split,
            self.eval_rows,
            self.config.data.image_size,
            self._reading(self.eval_rows, len(split)),
        )
        sums = []
        with contextlib.closing(batches):
            for number, batch in enumerate(place_batches(batches, self.mesh)):
                if stop(number):
                    raise Interrupted
                sums.append(self.evaluate_batch(state, batch))
                # The host runs only one batch ahead of the devices.
                jax.block_until_ready(sums[-2:][0])
        return _means(sums, len(split))

    def result_fields(self, state: TrainState) -> dict[str, Any]:
        """The sizes of the data, and the norms of the network's weights."""
        sizes = {"num_classes": self.num_classes, "num_test": len(self.test)}
        return sizes | margins.norms(state.evaluated["params"])

    def _batches(self, step: int) -> Iterator[stream.Batch]:
        """The batches of training from `step` on, without end."""
        config = self.config
        return stream.train_batches(
            self.train,
            config.batch_size,
            config.data.image_size,
            config.seed,
            config.augment.crop,
            self._reading(config.batch_size),
            step,
        )


def _reading(
    config: ConfigDict, mesh: Mesh, cores: int, batch_size: int, num_images: int | None = None
) -> stream.Reading:
    """How this process reads its rows of batches, without end or of `num_images` images."""
    data = config.data
    rows = sharding.local_rows(batch_size, mesh)
    num_rows = rows.stop - rows.start
    if num_images is not None:
        num_images = num_images * num_rows // batch_size
    num_threads, num_workers = readers.choose(
        data.num_threads, data.num_workers, cores, num_rows * 3 * data.image_size**2, num_images
    )
    return stream.Reading(rows, num_threads, num_workers, data.skip_bad)


def _processes(reading: stream.Reading) -> str:
    if not reading.num_workers:
        return "this process"
    return f"{reading.num_workers} worker process{'' if reading.num_workers == 1 else 'es'}"


def _eval_rows(config: ConfigDict, mesh: Mesh, num_images: int) -> int:
    """The number of rows of an evaluation batch, over all devices, for splits of `num_images`.

    Rows without an image take as long as images. So a batch has no more rows than there are images,
    unless it is small. A small one stays as it is, since the last digits of a loss depend on it.
    """
    largest = max(FIELDS["eval_batch_size"].default, math.ceil(num_images / mesh.size))
    return min(config.eval_batch_size, largest) * mesh.size


def _require_memory(config: ConfigDict, mesh: Mesh, eval_rows: int, num_threads: int) -> None:
    """Raises InputError if batches of images take more memory than there is."""
    size = config.data.image_size
    num_values = size * size * 3
    rows = max(config.batch_size, eval_rows) // mesh.size
    sharding.require_memory(
        mesh,
        4 * num_values * rows,
        f"a batch of {rows:,} images of {size} x {size} pixels on each device",
        "a smaller config.data.image_size, config.batch_size or config.eval_batch_size",
    )
    ahead = pipeline.rows_ahead(num_threads)
    sharding.require_host_memory(
        num_values * ahead,
        f"reading {ahead:,} images of {size} x {size} pixels ahead",
        "a smaller config.data.image_size or config.data.num_threads",
    )


def _means(sums: list[dict[str, jax.Array]], num_images: int) -> dict[str, float]:
    """Means over the images that count, and how many are "skipped", from the sums over batches."""
    total = {name: sum(float(batch[name]) for batch in sums) for name in sums[0]}
    count = total.pop("weight")
    require(
        count > 0,
        f"none of the {num_images} images of a split can be read, and config.data.skip_bad=True "
        "skips them all. Check the files of the data set, or prepare it again.",
    )
    means = {name: value / count for name, value in total.items()}
    return means | {"skipped": num_images - round(count)}


def load_data(config: ConfigDict) -> Dataset[stream.Split]:
    """The data with its corrupted training labels. No image is read before batches are."""
    data = config.data
    dataset = stream.load(
        data.name,
        data.data_dir or None,
        data.num_train,
        config.seed,
        data.num_test,
        data_set.evaluation(config),
    )
    corrupt = randomize.label_corruption(
        int(dataset.train.indices.max()) + 1,
        dataset.num_classes,
        config.randomize.labels,
        config.randomize.seed,
    )
    return dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, corrupt=corrupt))


def build_network(config: ConfigDict, mesh: Mesh, num_train: int, num_classes: int) -> Network:
    """The network of `config` on the devices of `mesh`, for `num_train` training images.

    Raises InputError for a batch size or a network that cannot work.
    """
    size = config.data.image_size
    example = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    steps_per_epoch = num_train / config.batch_size
    return network.build(config, mesh, example, num_classes, num_train, steps_per_epoch)


def build_train_step(config: ConfigDict, net: Network) -> Callable:
    """The program (state, batch, seed) -> (state, loss), for a batch that the devices share.

    A batch is a `stream.Batch` of `place_batches`. The program is compiled when it is first called.
    """
    return steps.make_streamed_step(net.train_step, net.devices, _view(config))


def _view(config: ConfigDict) -> Callable:
    """A function (images, keys) -> what the network sees of them in training."""
    return functools.partial(images.distort, settings=config.augment.to_dict())


def place_batches(batches: Iterable[stream.Batch], mesh: Mesh) -> Iterator[stream.Batch]:
    """Yields the batches, split over the devices of `mesh`. `PREFETCH` more are on their way.

    Each process gives its own rows of a batch.
    """
    waiting = collections.deque()
    for batch in batches:
        # Devices index with 32 bits. The index -1 of padding wraps around; no draw for it is used.
        narrow = batch._replace(
            indices=batch.indices.astype(np.uint32), epochs=batch.epochs.astype(np.uint32)
        )
        waiting.append(sharding.split(narrow, mesh))
        if len(waiting) > PREFETCH:
            yield waiting.popleft()
    yield from waiting
