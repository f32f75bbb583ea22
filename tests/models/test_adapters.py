"""Networks of Flax NNX and of pure functions behind the interface of training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rethinking import models, own_code, sharding
from rethinking.errors import InputError
from rethinking.models.adapters import adapt
from rethinking.training import check, optim, state, steps
from rethinking.training.losses import cross_entropy

VECTOR = jax.ShapeDtypeStruct((4,), jnp.float32)
X = jnp.arange(8.0).reshape(2, 4)
BATCH = jax.random.normal(jax.random.key(1), (16, 4)), jnp.arange(16) % 10


class Head(nnx.Module):
    """A linear classifier; the others below add something to it."""

    def __init__(self, num_classes, *, rngs):
        self.linear = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.linear(x)


class Count(nnx.Variable):
    """A kind of variable of the user's own."""


class Everything(Head):
    """Whatever an NNX module may hold."""

    def __init__(self, num_classes, *, rngs):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        self.linear = nnx.Linear(4, num_classes, kernel_init=init, rngs=rngs)
        self.tied = self.linear
        self.scale = jnp.ones(num_classes)
        self.table = np.arange(4)
        self.count = Count(jnp.zeros((), jnp.int32))
        self.pair = nnx.BatchStat((jnp.zeros(2), jnp.ones(3)))
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.rngs = rngs

    def __call__(self, x):
        self.count[...] += 1
        self.sow(nnx.Intermediate, "x", x)
        self.sow("losses", "activity", x.mean())
        for block in self.blocks:
            x = block(x)
        x = self.dropout(x)
        if not self.dropout.deterministic:
            x = x + self.rngs.noise.normal(x.shape)
        return self.tied(x[:, self.table]) * self.scale[None]


class Called(nnx.Module):
    """Dropout whose random numbers come with the call, as in Flax's MNIST example."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(4, 10, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.5)

    def __call__(self, x, rngs: nnx.Rngs):
        return self.linear(self.dropout(x, rngs=rngs))


class Mnist(nnx.Module):
    """The layers of Flax's NNX tutorial on MNIST, constructed and called as there."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv_a = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
        self.norm_a = nnx.BatchNorm(32, rngs=rngs)
        self.conv_b = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
        self.norm_b = nnx.BatchNorm(64, rngs=rngs)
        self.pool = functools.partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.dense_a = nnx.Linear(7 * 7 * 64, 256, rngs=rngs)
        self.dense_b = nnx.Linear(256, 10, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.025)

    def __call__(self, x, rngs: nnx.Rngs | None = None):
        x = self.dropout(self.conv_a(x), rngs=rngs)
        x = self.pool(nnx.relu(self.norm_a(x)))
        x = self.pool(nnx.relu(self.norm_b(self.conv_b(x))))
        x = nnx.relu(self.dropout(self.dense_a(x.reshape(len(x), -1)), rngs=rngs))
        return self.dense_b(x)


class Growing(Head):
    def __call__(self, x):
        self.seen = nnx.BatchStat(x.mean())
        return super().__call__(x)


class Batchwise(Head):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.last = nnx.BatchStat(jnp.zeros((1, 4)))

    def __call__(self, x):
        self.last.set_value(x)
        return super().__call__(x)


class Keyed(Head):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.key = nnx.BatchStat(rngs.params())


class Whole(Head):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.number = nnx.Param(jnp.zeros((), jnp.int32))


class Counting(Head):
    calls = 0

    def __call__(self, x):
        self.calls += 1
        return super().__call__(x) * self.calls


class Listing(Head):
    def __init__(self, num_classes, *, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.seen = [0]

    def __call__(self, x):
        self.seen.append(1)
        return super().__call__(x)


class FiveClasses(Head):
    def __init__(self, *, rngs):
        super().__init__(5, rngs=rngs)


class Mistaken(Head):
    def __call__(self, x):
        return super().__call__(x) @ jnp.ones((3, 4))


class TakesTrain(Head):
    def __call__(self, x, train):
        return super().__call__(x)


class TakesMode(Head):
    def __call__(self, x, deterministic=True):
        return super().__call__(x)


class TakesMask(Head):
    def __call__(self, x, mask):
        return super().__call__(x)


class NoCall(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(4, 10, rngs=rngs)


class NoRngs(nnx.Module):
    def __init__(self, num_classes):
        self.linear = nnx.Linear(4, num_classes, rngs=nnx.Rngs(0))


class Linear:
    """A linear classifier of pure functions."""

    def init(self, key, x):
        return {"params": {"w": jnp.ones((4, 10))}, "steps": {"n": jnp.zeros(())}}

    def apply(self, variables, x, train, key):
        return x @ variables["params"]["w"], {"steps": {"n": variables["steps"]["n"] + 1}}


class Redrawn(Linear):
    def apply(self, variables, x, train, key):
        logits, state = super().apply(variables, x, train, key)
        return logits * np.random.default_rng().normal(size=(1, 10)).astype(np.float32), state


class NoParams(Linear):
    def init(self, key, x):
        return [jnp.ones((4, 10))]


class NoState(Linear):
    def apply(self, variables, x, train, key):
        return super().apply(variables, x, train, key)[0]


class LostState(Linear):
    def apply(self, variables, x, train, key):
        return super().apply(variables, x, train, key)[0], {}


class OtherCall(Linear):
    def apply(self, params, state, key, x, train):
        return x, state


class OtherTypes(Linear):
    def apply(self, variables, x, train, key):
        return super().apply(variables, x, train, key)[0], {"steps": [variables["steps"]["n"]]}


class Functional(Linear):
    def init(self, key, x):
        return super().init(key, x) | {"activation": jnp.tanh}


LINEAR, INITIALIZED = Linear(), Head(10, rngs=nnx.Rngs(0))


def made(name):
    return adapt(models.create(f"{__name__}:{name}", 10, example_shape=(4,)))


def checked(name, num_devices=1, average_decay=0.0, example=VECTOR):
    """The form of the state of a network, after all checks."""
    model = made(name)
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    optimizer = optim.sgd(lambda step: 0.1, 0.9, 0.01)
    averager = optim.moving_average(average_decay) if average_decay else None
    check.check_model(model, example, 10)
    train_step = steps.make_train_step(model, optimizer, devices, 8, averager=averager)
    initialize = state.initializer(model, optimizer, example, averager)
    return check.check_training(model, initialize, train_step, devices, example)


@pytest.mark.parametrize("num_devices, average_decay", [(1, 0.0), (8, 0.9)])
def test_every_kind_of_variable_of_nnx_is_kept_and_streams_are_not(num_devices, average_decay):
    form = checked("Everything", num_devices, average_decay)
    weights = {"bias": (4,), "kernel": (4, 4)}
    assert jax.tree.map(jnp.shape, form.params) == {
        "linear": {"bias": (10,), "kernel": (4, 10)},
        "blocks": {"0": weights, "1": weights},
    }
    assert jax.tree.map(jnp.shape, form.model_state) == {
        "Count": {"count": ()},
        "arrays": {"scale": (10,), "table": (4,)},
        "batch_stats": {"pair": ((2,), (3,))},
    }
    decays = optim.decayed(form.params)
    assert decays["linear"] == {"bias": False, "kernel": True}
    assert made("Everything").sown(X) == ["Intermediate", "losses"]


def test_a_step_of_nnx_is_a_pure_function_of_its_key():
    model = made("Everything")
    init = jax.jit(model.init)
    variables = init(jax.random.key(0), X)
    other = init(jax.random.key(1), X)["params"]["linear"]["kernel"]
    assert not np.array_equal(other, variables["params"]["linear"]["kernel"])
    train = jax.jit(functools.partial(model.apply, train=True))
    first, after = train(variables, X, key=jax.random.key(2))
    again, _ = train(variables, X, key=jax.random.key(2))
    other, _ = train(variables, X, key=jax.random.key(3))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert after["Count"]["count"] == 1
    outputs, same = jax.jit(functools.partial(model.apply, train=False))(variables, X)
    assert same["Count"]["count"] == 0
    hidden = X
    for block in ("0", "1"):
        layer = variables["params"]["blocks"][block]
        hidden = hidden @ layer["kernel"] + layer["bias"][None]
    expected = hidden @ variables["params"]["linear"]["kernel"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_the_network_of_flaxs_tutorial_is_taken_as_it_is():
    with jax.numpy_dtype_promotion("standard"):  # Flax's pooling divides by a whole number
        form = checked("Mnist", 2, example=jax.ShapeDtypeStruct((28, 28, 1), jnp.float32))
    convolutions = 9 * 32 + 32 + 9 * 32 * 64 + 64
    dense = 7 * 7 * 64 * 256 + 256 + 256 * 10 + 10
    assert sum(leaf.size for leaf in jax.tree.leaves(form.params)) == (
        convolutions + 2 * (32 + 64) + dense
    )
    assert form.model_state.keys() == {"batch_stats"}


def test_a_call_that_names_rngs_gets_them():
    model = made("Called")
    variables = jax.jit(model.init)(jax.random.key(0), X)
    x = jnp.ones((1000, 4))
    logits, _ = model.apply(variables, x, train=True, key=jax.random.key(1))
    # Each of the four inputs is kept with probability 1/2 and then doubled.
    means = model.apply(variables, x, train=False)[0][0]
    spread = jnp.sqrt((variables["params"]["linear"]["kernel"] ** 2).sum(0) / 1000)
    assert (jnp.abs(logits.mean(0) - means) < 5 * spread).all()
    assert len(jnp.unique(logits[:, 0])) == 16


SGD = optim.sgd(lambda step: 0.1, 0.9, 0.0)


def model_of(kind, axis_name=None, dropout=0.0):
    name = f"tests.models.kinds:{kind}"
    return adapt(models.create(name, 10, jnp.float32, axis_name, (4,), dropout=dropout))


@functools.cache
def start_of(kind):
    """The state before the first step. It is the same for any number of devices."""
    return state.initializer(model_of(kind), SGD, VECTOR)(0)


def stepped(kind, num_devices, sync=False, dropout=0.0):
    """The losses of two steps on BATCH, and the state after them."""
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    model = model_of(kind, devices.axis_name if sync else None, dropout)
    train_step = steps.make_train_step(model, SGD, devices, 16)
    step = devices.compile(
        lambda state, x, labels, key: train_step(
            state, x, labels, jax.random.fold_in(key, devices.index())
        ),
        split_argnums=(1, 2),
    )
    after, losses = sharding.replicate(start_of(kind), devices.mesh), []
    for _ in range(2):
        after, loss = step(after, *BATCH, jax.random.key(0))
        losses.append(float(loss))
    return losses, after


@pytest.mark.parametrize("num_devices, sync", [(1, False), (2, True), (8, False)])
def test_batch_norm_of_nnx_is_that_of_linen_on_as_many_devices(num_devices, sync):
    expected, linen = stepped("LinenNormalized", num_devices, sync)
    losses, ours = stepped("NnxNormalized", num_devices, sync)
    assert losses == expected
    stats = linen.model_state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_array_equal(ours.model_state["batch_stats"]["norm"]["var"], stats["var"])
    assert np.abs(stats["var"] - 1).max() > 1e-3


def test_each_device_drops_out_by_its_own_key():
    num_devices = 8
    losses, _ = stepped("NnxNormalized", num_devices, dropout=0.5)
    apply = jax.jit(functools.partial(model_of("NnxNormalized", dropout=0.5).apply, train=True))
    start = start_of("NnxNormalized")
    variables = state.variables(start.params, start.model_state)
    expected = []
    for device, part in enumerate(np.split(np.arange(16), num_devices)):
        key = jax.random.fold_in(jax.random.key(0), device)
        outputs, _ = apply(variables, BATCH[0][part], key=key)
        expected.append(cross_entropy(outputs, BATCH[1][part]))
    np.testing.assert_allclose(losses[0], np.mean(expected), rtol=1e-5)


def test_pure_functions_keep_their_state():
    form = checked("Linear", 8)
    assert form.model_state["steps"]["n"].dtype == jnp.float32
    model = made("LINEAR")
    variables = model.init(jax.random.key(0), X)
    assert model.apply(variables, X, train=True)[1]["steps"]["n"] == 1
    assert model.apply(variables, X, train=False)[1]["steps"]["n"] == 0
    assert models.fields(f"{__name__}:LINEAR") == []


@pytest.mark.parametrize("name", ["Head", "Linear", "LINEAR"])
def test_the_version_of_every_kind_is_recorded(name):
    assert len(own_code.loaded_digest(f"{__name__}:{name}")) == 12


@pytest.mark.parametrize(
    "name, reason",
    [
        ("Growing", "seen is nothing before the step .* Make every nnx.Variable in the const"),
        ("Batchwise", r"last is float32\[1,4\] before .* float32\[2,4\] after .* on the batch"),
        ("Keyed", r"batch_stats/key is key<fry>.* Keep nnx.Rngs in place of a key"),
        ("Whole", "parameter params/number is int32.* in another kind of nnx.Variable"),
        ("Counting", "Counting sets calls in its call. .* Make an nnx.Variable of it"),
        ("Listing", r"Listing sets seen\.\d in its call"),
        ("Redrawn", "computes something else in each call.* by jax.random"),
        ("FiveClasses", r"returns \(2, 5\) for 2 examples.* the argument num_classes"),
        ("Mistaken", r"test_adapters.py, line \d+: TypeError: dot_general.* network Mistaken"),
        ("TakesTrain", "called as model.x., but its call has the argument `train`. .*model.train"),
        ("TakesMode", "its call has the argument `deterministic`. Leave it out"),
        ("TakesMask", "its call has the argument `mask`. Give it a default"),
        ("NoCall", "has no __call__"),
        ("NoRngs", "unexpected keyword argument 'rngs'. .* Define def __init__"),
        ("INITIALIZED", "INITIALIZED has its values already.* Name its class Head"),
        ("NoParams", 'init of the network NoParams returns list. Return {"params": ...}'),
        ("NoState", r"apply of the network NoState returns \w+. Return \(logits, state\)"),
        ("LostState", "steps/n is float32.* before the step and nothing after it. apply must"),
        ("OtherCall", r"apply\(params, state, key, x, train\), but it is called as apply\(var"),
        ("OtherTypes", "steps/n is float32.* before the step and nothing after"),
        ("Functional", "nothing but arrays"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_the_terms_of_its_kind(name, reason):
    with pytest.raises(InputError, match=reason):
        checked(name)
