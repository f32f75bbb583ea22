"""Training epochs on one device, on many devices, and against closed forms."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethinking import models, sharding
from rethinking.models import layers
from rethinking.models.adapters import adapt
from rethinking.models.batch_norm import BatchNorm
from rethinking.training import evaluate, optim, state, steps

NUM, SIZE, CLASSES, BATCH_SIZE = 96, 12, 10, 16


def image(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = random.standard_normal((NUM, SIZE, SIZE, 3), np.float32)
    return images, random.integers(0, CLASSES, NUM).astype(np.int32)


@functools.cache
def compiled(name, num_devices, sync, learning_rate, scan):
    """Functions that make a state from a seed, train it for an epoch and evaluate it."""
    mesh = sharding.device_mesh(num_devices)
    devices = sharding.DataParallel(mesh)
    axis_name = devices.axis_name if sync else None
    model = adapt(models.create(name, CLASSES, jnp.float32, axis_name))
    optimizer = optim.sgd(optim.schedule(learning_rate, 0.95, NUM // BATCH_SIZE), 0.9, 0.0)
    initialize = state.initializer(model, optimizer, image(SIZE, SIZE, 3))
    scan = steps.use_scan(jax.eval_shape(initialize, 0).params) if scan is None else scan
    train_step = steps.make_train_step(model, optimizer, devices, BATCH_SIZE)
    make_epoch = steps.make_train_epoch if scan else one_program_per_step
    epoch = make_epoch(train_step, devices, BATCH_SIZE, lambda images, keys: images)
    measure = evaluate.make_evaluate(model, devices, 20, lambda images: images)
    return mesh, initialize, epoch, measure


def one_program_per_step(train_step, devices, batch_size, view):
    """What `steps.make_train_epoch` returns, as a loop in Python."""
    shuffle = devices.compile(steps.make_shuffle(batch_size))
    step = devices.compile(steps.make_indexed_step(train_step, devices, batch_size, view))

    def epoch(train_state, images, labels, *numbers):
        losses = []
        for rows in shuffle(labels, *numbers[1:]):
            train_state, loss = step(train_state, images, labels, *numbers, rows)
            losses.append(loss)
        return train_state, jnp.stack(losses).mean()

    return epoch


def train(name, num_devices, data, epochs, sync=False, learning_rate=3e-3, seed=3, scan=None):
    """The mean loss of each epoch, the final state and its evaluation."""
    mesh, initialize, epoch, measure = compiled(name, num_devices, sync, learning_rate, scan)
    train_state = sharding.replicate(initialize(seed), mesh)
    arrays = map(jnp.asarray, (*data, np.arange(NUM, dtype=np.uint32)))
    images, labels, indices = sharding.replicate(tuple(arrays), mesh)
    losses = []
    for number in range(epochs):
        train_state, loss = epoch(
            train_state, images, labels, indices, jnp.uint32(seed), jnp.uint32(number)
        )
        losses.append(float(loss))
    measured = measure(train_state, images, labels)
    return losses, jax.device_get(train_state), measured


class Normalized(nn.Module):
    """One convolution with batch norm: a small network that compiles quickly."""

    num_classes: int
    bn_axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        x = layers.Conv(8, (3, 3))(x)
        x = nn.relu(BatchNorm(use_running_average=not train, axis_name=self.bn_axis_name)(x))
        return layers.Classifier(self.num_classes)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    "name, sync, learning_rate, counts",
    [
        ("mlp_1x512", False, 3e-3, (2, 8)),
        pytest.param("alexnet", False, 3e-2, (8,), marks=pytest.mark.slow),
        ("tests.training.test_steps:Normalized", True, 1e-2, (2, 8)),
    ],
)
def test_one_device_equals_many(name, sync, learning_rate, counts, data):
    """24 steps, at learning rates that do not amplify rounding."""
    one = train(name, 1, data, epochs=4, sync=sync, learning_rate=learning_rate)
    assert one[0][3] < 0.985 * one[0][0]
    for count in counts:
        many = train(name, count, data, epochs=4, sync=sync, learning_rate=learning_rate)
        np.testing.assert_allclose(many[0], one[0], rtol=1e-4)
        np.testing.assert_allclose(many[2]["loss"], one[2]["loss"], rtol=1e-4)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_one_program_per_step_equals_one_per_epoch(num_devices, data):
    scanned, stepped = (
        train("mlp_1x512", num_devices, data, epochs=2, scan=scan) for scan in (True, False)
    )
    np.testing.assert_allclose(stepped[0], scanned[0], rtol=1e-5)
    np.testing.assert_allclose(stepped[2]["loss"], scanned[2]["loss"], rtol=1e-5)


def test_convolutions_on_a_cpu_take_one_program_per_step():
    assert steps.use_scan({"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)})
    assert not steps.use_scan({"kernel": jnp.zeros((3, 3, 3, 4))})


def test_batch_norm_over_each_devices_part_differs_from_synchronized(data):
    images, labels = data
    unlike = images * np.linspace(0.1, 4, NUM, dtype=np.float32)[:, None, None, None], labels
    name, options = "tests.training.test_steps:Normalized", {"epochs": 1, "learning_rate": 1e-2}
    own, synchronized = (train(name, 8, unlike, sync=sync, **options)[0] for sync in (False, True))
    assert abs(own[0] - synchronized[0]) > 1e-3


def test_same_seed_same_bits_other_seed_other_order(data):
    first, again, other = (
        train("mlp_1x512", 1, data, epochs=2, seed=seed)[1] for seed in (3, 3, 4)
    )
    assert all(jax.tree.map(np.array_equal, first.params, again.params)["Dense_0"].values())
    assert not np.array_equal(first.params["Dense_0"]["kernel"], other.params["Dense_0"]["kernel"])
    assert first.step == 12


def test_an_epoch_sees_every_example_once_and_its_own_key():
    """The network has no parameters that matter, so the loss tells which examples it saw."""

    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            self.param("unused", nn.initializers.zeros, (1,))
            return jnp.stack([x.reshape(len(x), -1).sum(1), jnp.zeros(len(x))], 1)

    mesh, optimizer = sharding.device_mesh(4), optim.sgd(lambda step: 0.1, 0.9, 0.0)
    devices = sharding.DataParallel(mesh)
    model = adapt(Sum())
    train_step = steps.make_train_step(model, optimizer, devices, 8)
    train_state = sharding.replicate(state.initializer(model, optimizer, image(1, 1, 1))(0), mesh)
    images = jnp.arange(40.0).reshape(40, 1, 1, 1)
    epoch = steps.make_train_epoch(train_step, devices, 8, lambda x, keys: x)
    losses = []
    for number in (0, 1):
        labels, indices = jnp.ones(40, jnp.int32), jnp.arange(40, dtype=jnp.uint32)
        train_state, loss = epoch(
            train_state, images, labels, indices, jnp.uint32(0), jnp.uint32(number)
        )
        losses.append(float(loss))
    # The loss of label 1 against logits (x, 0) is log(1 + e^x). Its mean over an epoch is known.
    expected = np.logaddexp(0, np.arange(40.0)).mean()
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


class NoScope:
    """In place of jax.named_scope."""

    def __init__(self, name):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass

    def __call__(self, function):
        return function


def lowered(num_devices):
    """The programs of an epoch and of an evaluation, without and with the names of their parts."""
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    model = adapt(models.create("mlp_1x512", CLASSES, jnp.float32, None))
    optimizer = optim.sgd(optim.schedule(0.1, 0.95, 6), 0.9, 0.0)
    start = state.initializer(model, optimizer, image(SIZE, SIZE, 3))(0)
    train_step = steps.make_train_step(model, optimizer, devices, 16)
    epoch = steps.make_train_epoch(train_step, devices, 16, lambda images, keys: images)
    images, labels = jnp.zeros((NUM, SIZE, SIZE, 3)), jnp.zeros(NUM, jnp.int32)
    numbers = labels.astype(jnp.uint32), jnp.uint32(0), jnp.uint32(0)
    programs = [
        epoch.lower(start, images, labels, *numbers),
        evaluate.make_sums(model, devices, 32, lambda images: images).lower(start, images, labels),
    ]
    return [[program.as_text(debug_info=named) for program in programs] for named in (False, True)]


@pytest.mark.parametrize("num_devices", [1, 8])
def test_the_names_of_phases_do_not_change_the_programs(num_devices, monkeypatch):
    plain, (epoch, evaluation) = lowered(num_devices)
    for phase in ("gather", "forward", "backward", "update"):
        assert f'"{phase}/' in epoch or f"/{phase}/" in epoch
    assert "evaluate" in evaluation
    monkeypatch.setattr(jax, "named_scope", NoScope)
    assert lowered(num_devices)[0] == plain
