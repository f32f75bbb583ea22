"""A training epoch against PyTorch's arithmetic, against other device counts, and in what it shuffles."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethinking import models, sharding
from rethinking.models import layers
from rethinking.models.batch_norm import BatchNorm
from rethinking.training import evaluate, optim, state, steps

NUM, SIZE, CLASSES = 96, 12, 10


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = random.standard_normal((NUM, SIZE, SIZE, 3), np.float32)
    return images, random.integers(0, CLASSES, NUM).astype(np.int32)


def train(
    name,
    num_devices,
    data,
    epochs,
    batch_size=16,
    sync=False,
    learning_rate=3e-4,
    seed=3,
    scan=None,
):
    """Trains for some epochs; returns the mean loss of each, the final state and the evaluation."""
    mesh = sharding.data_mesh(num_devices)
    devices = sharding.DataParallel(mesh)
    model = models.create(name, CLASSES, jnp.float32, devices.axis_name if sync else None)
    optimizer = optim.sgd(optim.schedule(learning_rate, 0.95, NUM // batch_size), 0.9, 0.0)
    train_state = sharding.replicate(
        state.initializer(model, optimizer, (SIZE, SIZE, 3))(seed), mesh
    )
    train_step = steps.make_train_step(model, optimizer, devices, batch_size)
    scan = steps.use_scan(train_state.params) if scan is None else scan
    epoch = steps.make_train_epoch(
        train_step, devices, batch_size, lambda images, keys: images, scan
    )
    arrays = map(jnp.asarray, (*data, np.arange(NUM, dtype=np.uint32)))
    images, labels, indices = sharding.replicate(tuple(arrays), mesh)
    losses = []
    for number in range(epochs):
        train_state, loss = epoch(
            train_state, images, labels, indices, jnp.uint32(seed), jnp.uint32(number)
        )
        losses.append(float(loss))
    measured = evaluate.make_evaluate(model, devices, 20, lambda images: images)(
        train_state, images, labels
    )
    return losses, jax.device_get(train_state), jax.tree.map(float, measured)


class Normalized(nn.Module):
    """One convolution and its batch norm: small, so that it is soon compiled."""

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
        ("alexnet", False, 3e-2, (8,)),
        ("tests.test_steps:Normalized", True, 1e-2, (2, 8)),
    ],
)
def test_one_device_equals_many(name, sync, learning_rate, counts, data):
    """24 steps, at rates that do not blow rounding up: at larger ones it is chaos, not devices, that differs."""
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


def test_batch_norm_of_each_device_its_own_batch_differs_from_synchronized(data):
    images, labels = data
    unlike = images * np.linspace(0.1, 4, NUM, dtype=np.float32)[:, None, None, None], labels
    own, synchronized = (
        train("tests.test_steps:Normalized", 8, unlike, epochs=1, sync=sync)[0]
        for sync in (False, True)
    )
    assert abs(own[0] - synchronized[0]) > 1e-3


def test_same_seed_same_bits_other_seed_other_order(data):
    first, again, other = (
        train("mlp_1x512", 1, data, epochs=2, seed=seed)[1] for seed in (3, 3, 4)
    )
    assert all(jax.tree.map(np.array_equal, first.params, again.params)["Dense_0"].values())
    assert not np.array_equal(first.params["Dense_0"]["kernel"], other.params["Dense_0"]["kernel"])
    assert first.step == 12


def test_sgd_equals_pytorch_with_momentum_decay_and_schedule():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    random = np.random.default_rng(1)
    start, target = random.standard_normal((2, 5, 3))
    optimizer = optim.sgd(optim.schedule(0.1, 0.95, 2), 0.9, 0.01)
    params = {"kernel": jnp.asarray(start, jnp.float32)}
    opt_state = optimizer.init(params)
    theirs = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.StepLR(sgd, 2, 0.95)
    for _ in range(7):
        grads = jax.tree.map(lambda p: p - jnp.asarray(target, jnp.float32), params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        sgd.zero_grad()
        (0.5 * (theirs - torch.tensor(target)) ** 2).sum().backward()
        sgd.step()
        decay.step()
    np.testing.assert_allclose(params["kernel"], theirs.detach().numpy(), rtol=1e-5)


def test_weight_decay_acts_on_kernels_alone():
    model = models.create("inception", 10)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 28, 28, 3))
    )
    decayed = jax.tree_util.tree_leaves_with_path(optim.decayed(shapes["params"]))
    names = {path[-1].key: decay for path, decay in decayed}
    assert names == {"kernel": True, "bias": False}


def test_an_epoch_sees_every_example_once_and_its_own_key():
    """A network without parameters that matter; what the steps see is recorded through the loss."""

    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            self.param("unused", nn.initializers.zeros, (1,))
            return jnp.stack([x.reshape(len(x), -1).sum(1), jnp.zeros(len(x))], 1)

    mesh, optimizer = sharding.data_mesh(4), optim.sgd(lambda step: 0.1, 0.9, 0.0)
    devices = sharding.DataParallel(mesh)
    train_step = steps.make_train_step(Sum(), optimizer, devices, 8)
    train_state = sharding.replicate(state.initializer(Sum(), optimizer, (1, 1, 1))(0), mesh)
    images = jnp.arange(40.0).reshape(40, 1, 1, 1)
    epoch = steps.make_train_epoch(train_step, devices, 8, lambda x, keys: x)
    losses = []
    for number in (0, 1):
        labels, indices = jnp.ones(40, jnp.int32), jnp.arange(40, dtype=jnp.uint32)
        train_state, loss = epoch(
            train_state, images, labels, indices, jnp.uint32(0), jnp.uint32(number)
        )
        losses.append(float(loss))
    # Label 1 against logits (x, 0): the loss is log(1 + e^x), so the mean over an exact epoch is known.
    expected = np.logaddexp(0, np.arange(40.0)).mean()
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("num", [1, 7, 20, 21, 40, 41, 159, 160, 161])
def test_evaluation_counts_every_example_once_on_any_number_of_devices(num):
    random = np.random.default_rng(2)
    images = random.standard_normal((num, 2, 2, 1), np.float32)
    labels = random.integers(0, 3, num).astype(np.int32)
    model = models.create("mlp_1x512", 3)
    optimizer = optim.sgd(lambda step: 0.1, 0.9, 0.0)
    fresh = state.initializer(model, optimizer, (2, 2, 1))(0)
    logits = np.asarray(
        model.apply({"params": fresh.params}, jnp.asarray(images), train=False), np.float64
    )
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(num), labels]
    for count in (1, 3, 8):
        mesh = sharding.data_mesh(count)
        devices = sharding.DataParallel(mesh)
        measured = evaluate.make_evaluate(model, devices, 20, lambda images: images)(
            *sharding.replicate((fresh, jnp.asarray(images), jnp.asarray(labels)), mesh)
        )
        np.testing.assert_allclose(measured["loss"], losses.mean(), rtol=1e-5)
        np.testing.assert_allclose(
            measured["accuracy"], (logits.argmax(1) == labels).mean(), rtol=1e-6
        )
