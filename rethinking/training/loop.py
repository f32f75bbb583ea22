"""One training run, from a config to a finished run directory."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rethinking import config as configs
from rethinking import models, randomize, runs, sharding
from rethinking.data import arrays, images
from rethinking.data.source import Info
from rethinking.training import checkpoint, evaluate, metrics, optim, state, steps

_LOG = logging.getLogger(__name__)


def run(config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf) -> dict[str, Any] | None:
    """Trains as `config` says, continuing what `workdir` holds; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first: the state is saved then, and the same call continues.
    Raises ConfigError for settings, data or a workdir that cannot work, before any time is spent.
    """
    start = time.time()
    experiment = prepare(config)
    checkpoints = checkpoint.Checkpoints(run_directory.path)
    try:
        return _train(config, experiment, run_directory, checkpoints, start, deadline)
    finally:
        checkpoints.close()


@dataclasses.dataclass(frozen=True)
class Programs:
    """A network's start and the programs that train and evaluate it on any examples, each compiled when first called.

    Examples are what `place` makes of a split: stored images [n, h, w, c] and labels [n], on every device.
    """

    mesh: Mesh
    initial: state.TrainState
    steps_per_epoch: int
    train_epoch: Callable  # (state, images, labels, indices, seed, epoch) -> (state, mean loss of the steps)
    evaluate: Callable  # (state, images, labels) -> {"loss": ..., "accuracy": ...}
    logits: Callable  # (state, images) -> [n, num_classes], in evaluation mode
    learning_rate: optax.Schedule
    store: Callable  # images of the data set -> as they are stored

    @property
    def num_params(self) -> int:
        """The number of trained parameters."""
        return sum(param.size for param in jax.tree.leaves(self.initial.params))

    def place(self, split: arrays.Split) -> tuple[jax.Array, jax.Array]:
        """Stored images and labels, on every device."""
        return sharding.replicate((self.store(split.images), jnp.asarray(split.labels)), self.mesh)

    def scalar(self, value: int) -> jax.Array:
        """A seed or an epoch, on every device."""
        return sharding.replicate(jnp.uint32(value), self.mesh)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The programs of a run, and the data on the device that they run on."""

    state: state.TrainState
    num_params: int
    steps_per_epoch: int
    train_epoch: Callable  # (state, epoch) -> (state, mean loss of the steps)
    evaluate: Callable  # state -> {"train_loss": ..., "test_accuracy": ...}
    learning_rate: Callable  # step -> float


def build(config: ConfigDict, info: Info, num_train: int) -> Programs:
    """The network of `config` and its programs, for `num_train` training images of a set described by `info`.

    Raises ConfigError for devices, batch size or network that cannot work.
    """
    mesh = sharding.data_mesh(config.num_devices, config.batch_size)
    devices = sharding.DataParallel(mesh)
    if config.batch_size > num_train:
        raise configs.ConfigError(f"config.batch_size={config.batch_size} is more than the {num_train} training images")
    image_shape = images.center_crop(jnp.zeros((1, *info.image_shape), jnp.uint8), config.data.crop_size).shape[1:]
    model = models.create(
        config.model.name, info.num_classes, jnp.dtype(config.dtype),
        devices.axis_name if config.model.sync_batch_norm else None,
    )  # fmt: skip
    steps_per_epoch = num_train // config.batch_size
    learning_rate = optim.schedule(config.learning_rate, config.decay_per_epoch, steps_per_epoch)
    optimizer = optim.sgd(learning_rate, config.momentum, config.weight_decay)
    initial = sharding.replicate(state.create(model, optimizer, image_shape, config.seed), mesh)
    train_view, test_view, store = views(config)
    train_step = steps.make_train_step(model, optimizer, devices, config.batch_size)
    return Programs(
        mesh=mesh,
        initial=initial,
        steps_per_epoch=steps_per_epoch,
        train_epoch=steps.make_train_epoch(
            train_step, devices, config.batch_size, train_view, steps.use_scan(initial.params)
        ),
        evaluate=evaluate.make_evaluate(model, devices, config.eval_batch_size, test_view),
        logits=evaluate.make_logits(model, devices, config.eval_batch_size, test_view),
        learning_rate=learning_rate,
        store=store,
    )


def prepare(config: ConfigDict) -> Experiment:
    """Checks the config against data, devices and network, then loads, corrupts and places."""
    info = arrays.check(config.data.name, config.data.data_dir or None)
    programs = build(config, info, config.data.num_train or info.num_train)
    _LOG.info("%s on %s:\n%s", config.model.name, runs.device_name(), parameter_overview.get_parameter_overview(
        programs.initial.params, include_stats=False))
    dataset = load_data(config)
    train, test = programs.place(dataset.train), programs.place(dataset.test)
    indices = sharding.replicate(jnp.asarray(dataset.train.indices, jnp.uint32), programs.mesh)
    seed = programs.scalar(config.seed)

    def evaluate_both(state):
        values = {"train": programs.evaluate(state, *train), "test": programs.evaluate(state, *test)}
        return {f"{split}_{name}": float(value) for split in values for name, value in values[split].items()}

    return Experiment(
        state=programs.initial,
        num_params=programs.num_params,
        steps_per_epoch=programs.steps_per_epoch,
        train_epoch=lambda state, epoch: programs.train_epoch(state, *train, indices, seed, programs.scalar(epoch)),
        evaluate=evaluate_both,
        learning_rate=lambda step: float(programs.learning_rate(step)),
    )


def load_data(config: ConfigDict) -> arrays.Dataset:
    """The data with its corruption, which acts on what the network sees: after the centre crop, before whitening."""
    data = config.data
    dataset = arrays.load(data.name, data.data_dir or None, data.num_train, config.seed, data.num_test)
    if not config.augment.crop:
        crop = functools.partial(images.center_crop, size=config.data.crop_size)
        dataset = dataclasses.replace(dataset, **{
            name: dataclasses.replace(split, images=crop(split.images))
            for name, split in (("train", dataset.train), ("test", dataset.test))
        })
    return randomize.apply(dataset, config.randomize.labels, config.randomize.pixels, config.randomize.seed)


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


def _train(config, experiment, run_directory, checkpoints, start, deadline) -> dict[str, Any] | None:
    epoch, train_state = checkpoints.restore(experiment.state)
    run_directory.keep_metrics(epoch)
    if epoch:
        _LOG.info("Continuing after epoch %d.", epoch)
    spent = run_directory.metrics[-1]["seconds"] if run_directory.metrics else 0.0
    saved_at = began = time.time()
    with metrics.Progress(run_directory.path, config.row, config.max_epochs, epoch) as progress:
        while not (status := _status(config, run_directory.metrics)):
            # An epoch that would end after the deadline is not begun: it is taken to last as long as the one before.
            if (now := time.time()) + (now - began) > deadline:
                break
            began = now
            trained = {}
            if run_directory.metrics:  # the first line is measured before training
                train_state, loss = experiment.train_epoch(train_state, epoch)
                trained["step_loss"] = float(loss)
                epoch += 1
                num_images = experiment.steps_per_epoch * config.batch_size
                trained["examples_per_second"] = num_images / (time.time() - began)
            step = epoch * experiment.steps_per_epoch
            run_directory.append(
                {"step": step, "epoch": epoch, "learning_rate": experiment.learning_rate(step)}
                | {"examples_per_second": None} | trained | experiment.evaluate(train_state)
                | {"seconds": spent + time.time() - start}
            )  # fmt: skip
            progress.show(run_directory.metrics[-1])
            if time.time() - saved_at >= config.checkpoint_seconds:
                checkpoints.save(epoch, train_state)
                saved_at = time.time()
    checkpoints.save(epoch, train_state)
    if not status:
        _LOG.info("Out of time after epoch %d; the same command continues.", epoch)
        return None
    measured = metrics.summarize(run_directory.metrics, config.fit_accuracy)
    return run_directory.finish(
        runs.provenance(config) | {"status": status, "num_params": experiment.num_params} | measured
    )


def _status(config: ConfigDict, lines: list[dict[str, Any]]) -> str:
    """How the run has ended: "complete", "diverged", or "" if it goes on."""
    if not lines:
        return ""
    last = lines[-1]
    if any(last[name] is None for name in ("train_loss", "test_loss")) or last.get("step_loss", 0.0) is None:
        return "diverged"
    fitted = config.stop_when_fit and last["train_accuracy"] >= config.fit_accuracy
    return "complete" if fitted or last["epoch"] >= config.max_epochs else ""
