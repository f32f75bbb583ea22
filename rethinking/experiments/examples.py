"""The examples that a config describes, as the network sees them: images, vectors or tokens."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rethinking import randomize
from rethinking.data import arrays, images, shifts
from rethinking.data.source import Dataset, Info
from rethinking.errors import require
from rethinking.experiments import data_set
from rethinking.experiments.training_fields import FIELDS
from rethinking.training.check import in_words


def check(config: ConfigDict, info: Info) -> None:
    """Raises InputError for settings of a training that make no sense for the examples of a set."""
    if info.kind == "image":
        return
    found = f"{config.data.name} has {in_words(form(config, info))}"
    _require_default("data.crop_size", config.data.crop_size, f"is for images, but {found}")
    for name, value in config.augment.items():
        _require_default(f"augment.{name}", value, f"is for images, but {found}")
    if info.kind == "tokens":
        # Other sets may have tokens that the network does not have.
        _require_default("eval.shifts", config.eval.shifts, f"is not for tokens, and {found}")
        _require_default("data.whiten", config.data.whiten, f"has no effect, because {found}")
        require(
            config.randomize.pixels != "gaussian",
            f"config.randomize.pixels=gaussian needs numbers, but {found}. Set "
            "config.randomize.pixels=shuffled or random.",
        )


def _require_default(path: str, value: Any, problem: str) -> None:
    default = FIELDS[path].default
    remedy = f"Set config.{path}={default}." if default != "" else "Leave it out."
    require(value == default, f"config.{path}={value} {problem}. {remedy}")


def form(config: ConfigDict, info: Info) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an example that the network sees.

    Raises InputError for a crop that is larger than the images.
    """
    if info.kind == "tokens":
        return jax.ShapeDtypeStruct(info.example_shape, jnp.int32)
    shape = info.example_shape
    if info.kind == "image":
        blank = jnp.zeros((1, *shape), jnp.uint8)
        shape = images.center_crop(blank, config.data.crop_size).shape[1:]
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class Views(NamedTuple):
    """How examples become what the network sees."""

    train: Callable  # (stored examples, keys) -> what the network sees in training
    test: Callable  # stored examples -> what the network sees in evaluation
    store: Callable  # examples of `load` -> stored examples


def views(config: ConfigDict, kind: str) -> Views:
    """The views of `config` for examples of a kind (`Info.kind`).

    Images are cropped and whitened, before storing if there is no augmentation. Of vectors and
    tokens, the network sees what `load` returns.
    """
    plain = Views(lambda stored, keys: stored, lambda stored: stored, jnp.asarray)
    if kind != "image":
        return plain
    whiten = images.whiten if config.data.whiten else images.scale
    size = config.data.crop_size
    augmentation = config.augment.to_dict()

    def see(raw):
        return whiten(images.center_crop(raw, size))

    def see_augmented(raw, keys):
        return whiten(images.augment(raw, keys, size, augmentation))

    if any(augmentation.values()):
        return Views(see_augmented, see, jnp.asarray)
    return plain._replace(store=jax.jit(see))


def check_augmentation(config: ConfigDict, seen: Views, image_shape: tuple[int, ...]) -> None:
    """Raises InputError if images of `image_shape` cannot be augmented; computes nothing."""
    batch = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
    jax.eval_shape(lambda raw, keys: seen.train(seen.store(raw), keys), batch, keys)
    size = config.data.crop_size
    require(
        not config.augment.crop or image_shape[:2] != (size, size),
        f"config.augment.crop=True has no effect: a crop of config.data.crop_size={size} is the "
        "whole image. Choose a smaller crop, or set config.augment.crop=False.",
    )


def load(
    config: ConfigDict, change_test: Callable[[arrays.Split], arrays.Split] | None = None
) -> Dataset[arrays.Split]:
    """The data with its corruption.

    Images are corrupted after the centre crop and before whitening. Vectors are corrupted after
    they are standardized, because features of different units cannot change places.
    `change_test` replaces the test set before all that.
    """
    dataset = data_set.load(config)
    _require_black_and_white(config, dataset)
    train, test = dataset.train, dataset.test
    if change_test is not None:
        test = change_test(test)
    if train.images.ndim == 4 and not config.augment.crop:
        train, test = (_center_crop(split, config.data.crop_size) for split in (train, test))
    dataset = dataclasses.replace(dataset, train=train, test=test)
    return randomize.apply(
        data_set.standardized(dataset) if config.data.whiten else dataset,
        config.randomize.labels,
        config.randomize.pixels,
        config.randomize.seed,
    )


def _require_black_and_white(config: ConfigDict, dataset: Dataset[arrays.Split]) -> None:
    """Raises InputError if values beyond black and white would be lost by a change of colours."""
    changes = [f"config.augment.{name}" for name in images.COLORS if config.augment[name]]
    named = config.eval.shifts if "eval" in config else ""
    kinds = {name.partition("=")[0] for name in shifts.parse(named)}
    changes += [f"config.eval.shifts={kind}" for kind in shifts.CLIPPING if kind in kinds]
    for split in (dataset.train, dataset.test):
        if not changes or split.images.ndim != 4 or split.images.dtype != np.float32:
            continue
        low, high = float(split.images.min()) / 255, float(split.images.max()) / 255
        require(
            low >= 0 and high <= 1,
            f"{config.data.name} has images with values from {low:.3g} to {high:.3g}, but for "
            f"{changes[0]} black is 0 and white is 1. Scale the images to that, or leave it out.",
        )


def _center_crop(split: arrays.Split, size: int) -> arrays.Split:
    return dataclasses.replace(split, images=images.center_crop(split.images, size))
