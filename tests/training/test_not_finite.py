"""Which operation of a step made the first value that is not finite."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethinking import sharding
from rethinking.models.adapters import adapt
from rethinking.training import not_finite, optim, state, steps

X = jnp.asarray(np.linspace(0.5, 2.0, 8, dtype=np.float32))


def find(step, *args, num_devices=1, split=()):
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    return not_finite.find(step, devices, split, *args)


def masked_and_logged(w, x):
    """A mask of minus infinity, which does no harm, and a logarithm of 0, which does."""
    with jax.named_scope("forward"):
        with jax.named_scope("Attention"):
            scores = jnp.where(x > 1, x, -jnp.inf)
            weights = jax.nn.softmax(scores)
        with jax.named_scope("Head"):
            loss = (weights * w).sum() + jnp.log(0 * x).sum()
    return {"w": w - loss}, loss


def test_the_origin_of_the_loss_is_found_and_a_mask_is_not_blamed():
    found = find(masked_and_logged, X, X)
    assert (found.name, found.phase, found.layer) == ("log", "forward", "Head")
    assert found.form == "float32[8]"
    first = masked_and_logged.__code__.co_firstlineno
    assert found.line == f"test_not_finite.py, line {first + 7}"
    assert str(found) == (f"layer Head, phase forward, operation log -> float32[8] at {found.line}")


def test_a_step_that_is_finite_or_gets_values_that_are_not_has_no_origin():
    def step(w, x):
        scores = jnp.where(x > 1, x, -jnp.inf)
        return w, jax.nn.softmax(scores).sum()

    assert find(step, X, X) is None
    assert find(masked_and_logged, X.at[0].set(jnp.nan), X) is None


def test_a_state_that_is_not_finite_is_explained_where_the_loss_is():
    def step(w, x):
        loss = (w * x).sum()
        with jax.named_scope("update"):
            return w - 1e38 * jnp.float32(1e10) * x, loss

    found = find(step, X, X)
    assert (found.name, found.phase, found.layer) == ("mul", "update", "")


class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(16, name="first")(x))
        return nn.Dense(self.num_classes, name="second")(x)


def network_step(devices, scales):
    """A training step of a network whose weights are multiplied by these numbers."""
    model = adapt(Net(num_classes=4))
    optimizer = optim.sgd(optax.constant_schedule(0.1), 0.9, 0.0)
    start = state.initializer(model, optimizer, jax.ShapeDtypeStruct((8,), jnp.float32))(0)
    params = {}
    for name, scale in zip(("first", "second"), scales, strict=True):
        layer = start.params[name]
        params[name] = layer | {"kernel": layer["kernel"] * jnp.float32(scale)}
    step = steps.make_train_step(model, optimizer, devices, 16)
    start = sharding.replicate(start.replace(params=params), devices.mesh)
    return step, start


@pytest.mark.parametrize(
    "images, scales, num_devices, phase, layer",
    [
        (1e2, (1, 1e38), 1, "forward", "Net/second"),  # logits overflow
        (1e20, (1e-20, 1e25), 4, "backward", "Net/first"),  # logits are 1e25, the gradient 1e45
    ],
)
def test_the_layer_that_overflows_is_named(images, scales, num_devices, phase, layer):
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    step, start = network_step(devices, scales)
    random = np.random.default_rng(0)
    images = sharding.split(
        random.standard_normal((16, 8), np.float32) * np.float32(images), devices.mesh
    )
    labels = sharding.split(random.integers(0, 4, 16, dtype=np.int32), devices.mesh)

    def with_key(start, images, labels):
        return step(start, images, labels, jax.random.key(0))

    found = not_finite.find(with_key, devices, (1, 2), start, images, labels)
    assert (found.phase, found.layer, found.name) == (phase, layer, "dot_general")
