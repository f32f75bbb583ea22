"""Loss and accuracy of a whole set or of a weighted batch, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rethinking import models, sharding
from rethinking.data.stream import Batch
from rethinking.models.adapters import adapt
from rethinking.training import evaluate, optim, state


@functools.cache
def make_network(num_classes, image_shape):
    """A small network and its state before training."""
    model = adapt(models.create("mlp_1x512", num_classes))
    optimizer = optim.sgd(lambda step: 0.1, 0.9, 0.0)
    example = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    return model, state.initializer(model, optimizer, example)(0)


def cross_entropies(model, fresh, images, labels):
    """Logits in float64, and each example's loss by its definition."""
    logits, _ = model.apply({"params": fresh.params}, jnp.asarray(images), train=False)
    logits = np.asarray(logits, np.float64)
    return logits, np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


@pytest.mark.parametrize("num", [1, 7, 20, 21, 160, 161])
def test_evaluation_counts_every_example_once_on_any_number_of_devices(num):
    random = np.random.default_rng(2)
    images = random.standard_normal((num, 2, 2, 1), np.float32)
    labels = random.integers(0, 3, num).astype(np.int32)
    model, fresh = make_network(3, (2, 2, 1))
    logits, losses = cross_entropies(model, fresh, images, labels)
    for count in (1, 3, 8):
        mesh = sharding.device_mesh(count)
        devices = sharding.DataParallel(mesh)
        evaluated = evaluate.make_evaluate(model, devices, 20, lambda images: images)(
            *sharding.replicate((fresh, jnp.asarray(images), jnp.asarray(labels)), mesh)
        )
        np.testing.assert_allclose(evaluated["loss"], losses.mean(), rtol=1e-5)
        accuracy = (logits.argmax(1) == labels).mean()
        np.testing.assert_allclose(evaluated["accuracy"], accuracy, rtol=1e-6)


@pytest.mark.parametrize("num", [55, 880, 1700])
def test_the_accuracy_of_a_perfect_fit_is_one(num):
    """For these n, n times the float32 nearest to 1/n is less than 1."""
    assert np.float32(num) * (np.float32(1) / np.float32(num)) < 1
    images = np.random.default_rng(2).standard_normal((num, 2, 2, 1), np.float32)
    model, fresh = make_network(3, (2, 2, 1))
    labels = model.apply({"params": fresh.params}, jnp.asarray(images), train=False)[0].argmax(1)
    devices = sharding.DataParallel(sharding.device_mesh(1))
    measure = evaluate.make_evaluate(model, devices, 1000, lambda images: images)
    assert measure(fresh, jnp.asarray(images), labels)["accuracy"] == 1


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_is_summed_over_the_rows_that_count(count):
    """Rows of weight zero hold nan, which must not reach the sums."""
    random = np.random.default_rng(3)
    images = random.standard_normal((16, 2, 2, 3), np.float32)
    labels = random.integers(0, 8, 16).astype(np.int32)
    weights = (np.arange(16) % 3 > 0).astype(np.float32)
    model, fresh = make_network(8, (2, 2, 3))
    logits, losses = cross_entropies(model, fresh, images, labels)
    counted = weights > 0
    images[~counted] = np.nan
    mesh = sharding.device_mesh(count)
    numbers = np.arange(16, dtype=np.uint32)
    batch = sharding.split(Batch(images, labels, numbers, numbers, weights), mesh)
    sums = evaluate.make_evaluate_batch(model, sharding.DataParallel(mesh), lambda images: images)(
        sharding.replicate(fresh, mesh), batch
    )
    ranks = (logits > logits[np.arange(16), labels][:, None]).sum(1)
    np.testing.assert_allclose(sums["loss"], losses[counted].sum(), rtol=1e-5)
    assert float(sums["accuracy"]) == (ranks[counted] == 0).sum()
    assert float(sums["accuracy_top5"]) == (ranks[counted] < 5).sum()
    assert float(sums["weight"]) == counted.sum()


class LowPrecision(nn.Module):
    """Logits that are bfloat16: the images themselves."""

    @nn.compact
    def __call__(self, x, train):
        return x.reshape(len(x), -1).astype(jnp.bfloat16)


def test_low_precision_logits_are_evaluated_in_float32():
    random = np.random.default_rng(4)
    images = 4 * random.standard_normal((16, 1, 1, 6), np.float32)
    labels = random.integers(0, 6, 16).astype(np.int32)
    logits = np.asarray(jnp.asarray(images, jnp.bfloat16), np.float64).reshape(16, 6)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(16), labels]
    model, fresh = adapt(LowPrecision()), state.TrainState(0, {}, {}, ())
    devices = sharding.DataParallel(sharding.device_mesh(1))
    whole = evaluate.make_evaluate(model, devices, 16, lambda x: x)(fresh, images, labels)
    np.testing.assert_allclose(whole["loss"], losses.mean(), rtol=1e-6)
    numbers, ones = np.arange(16, dtype=np.uint32), np.ones(16, np.float32)
    sums = evaluate.make_evaluate_batch(model, devices, lambda x: x)(
        fresh, Batch(images, labels, numbers, numbers, ones)
    )
    np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-6)
    found = evaluate.make_logits(model, devices, 16, lambda x: x)(fresh, images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, logits)
