"""Networks that cannot be trained are refused with the reason; only shapes are computed."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.models.adapters import adapt
from rethinking.training import check, optim, state, steps

IMAGE = jax.ShapeDtypeStruct((4, 4, 1), jnp.float32)


class Head(nn.Module):
    """A linear classifier; the others below add something to it."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Sowing(Head):
    @nn.compact
    def __call__(self, x, train):
        self.sow("losses", "activity", (x**2).mean())
        nn.Dense(3, name="inner")(x)
        self.sow("intermediates", "x", x)
        if train:
            self.sow("seen", "x", x)
        return super().__call__(x, train)


class Boxed(Head):
    @nn.compact
    def __call__(self, x, train):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None))
        mean = self.variable("stats", "mean", nn.with_partitioning(jnp.zeros, (None,)), (3,))
        if train:
            mean.value = mean.value + 1.0
        return nn.Dense(self.num_classes, kernel_init=init)(x.reshape(len(x), -1))


class Kept(Head):
    """State of a given shape and dtype, of which a step makes something else."""

    start: str = "float32"
    after: str = "float32"
    of_batch: bool = False
    collection: str = "memory"
    of_device: bool = False

    @nn.compact
    def __call__(self, x, train):
        shape = x.shape[:1] if self.of_batch else ()
        kept = self.variable(self.collection, "kept", jnp.zeros, shape, self.start)
        if train and self.of_device:
            kept.value = (x > 0).sum(dtype=self.after)
        elif train:
            kept.value = jnp.ones(shape, self.after)
        return super().__call__(x, train)


class Mixed(Head):
    @nn.compact
    def __call__(self, x, train):
        self.variable("mixed", "pair", lambda: (jnp.zeros(2), jnp.zeros(3)))
        self.sow("mixed", "sown", x.mean())
        return super().__call__(x, train)


class Pair(Head):
    """A variable that is a tuple, and stays as it is."""

    @nn.compact
    def __call__(self, x, train):
        self.variable("carry", "pair", lambda: (jnp.zeros(2), jnp.zeros(3)))
        return super().__call__(x, train)


class Text(Head):
    @nn.compact
    def __call__(self, x, train):
        self.variable("notes", "text", lambda: "text")
        return super().__call__(x, train)


class Param(Head):
    dtype_of_param: str = "bfloat16"

    @nn.compact
    def __call__(self, x, train):
        weight = self.param("w", nn.initializers.ones, (16, self.num_classes), self.dtype_of_param)
        return x.reshape(len(x), -1) @ weight.real.astype(jnp.float32)


class Empty(Head):
    @nn.compact
    def __call__(self, x, train):
        return x.reshape(len(x), -1)[:, : self.num_classes]


class Hollow(Head):
    @nn.compact
    def __call__(self, x, train):
        self.param("w", nn.initializers.zeros, (16, 0))
        return super().__call__(x, train)


class Narrow(Head):
    """Five logits in training."""

    @nn.compact
    def __call__(self, x, train):
        return super().__call__(x, train)[:, : 5 if train else None]


class Classes(Head):
    @nn.compact
    def __call__(self, x, train):
        return super().__call__(x, train).astype(jnp.int32)


class Untrained(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Mistaken(Head):
    @nn.compact
    def __call__(self, x, train):
        return super().__call__(x, train) @ jnp.ones((3, 4))  # the mistake


class Noisy(Head):
    @nn.compact
    def __call__(self, x, train):
        noise = jax.random.normal(self.make_rng("noise"), x.shape) if train else 0.0
        return super().__call__(x + noise, train)


class Reduced(Head):
    """Fields that are there, with a dtype that nothing uses."""

    dtype: str = "float32"


def checked(model, num_devices=1, average_decay=0.0):
    """The state of `model` in its checked form, and what makes and changes it."""
    devices = sharding.DataParallel(sharding.device_mesh(num_devices))
    optimizer = optim.sgd(lambda step: 0.1, 0.9, 0.01)
    averager = optim.moving_average(average_decay) if average_decay else None
    dtype, model = getattr(model, "dtype", "float32"), adapt(model)
    check.check_model(model, IMAGE, 10, dtype)
    train_step = steps.make_train_step(model, optimizer, devices, 8, averager=averager)
    initialize = state.initializer(model, optimizer, IMAGE, averager)
    return check.check_training(model, initialize, train_step, devices, IMAGE)


@pytest.mark.parametrize("num_devices, average_decay", [(1, 0.0), (1, 0.9), (8, 0.0), (8, 0.9)])
@pytest.mark.parametrize(
    "model, collections",
    [
        (Sowing(), []),
        (Boxed(), ["stats"]),
        (Pair(), ["carry"]),
        (Kept(), ["memory"]),
        (Param(), []),
    ],
)
def test_what_a_step_keeps_is_the_state(model, collections, num_devices, average_decay):
    form = checked(model, num_devices, average_decay)
    assert sorted(form.model_state) == collections
    assert {type(leaf) for leaf in jax.tree.leaves(form)} == {jax.ShapeDtypeStruct}


@pytest.mark.parametrize(
    "model, num_devices, reason",
    [
        (Kept(of_batch=True), 1, r"memory/kept is float32\[1\] before .* float32\[2\] after"),
        (Kept(of_batch=True), 8, r"memory/kept is float32\[1\] before .* on the batch"),
        (Kept(start="bfloat16", collection="half"), 1, r"half/kept is bfloat16\[\] .* float32\[\]"),
        (Kept(after="int32"), 1, r"memory/kept is float32\[\] before .* int32\[\] after"),
        (
            Kept(start="int32", after="int32", of_device=True),
            8,
            "on 8 devices .*kept is int32.*differs betw",
        ),
        (Mixed(), 1, "mixed/sown/1 is nothing before"),
        (Text(), 1, "notes"),
        (Param(dtype_of_param="int32"), 1, "parameter params/w is int32"),
        (Param(dtype_of_param="complex64"), 1, "parameter params/w is complex64"),
        (Empty(), 1, "Empty has no parameters"),
        (Hollow(), 1, r"params/w is float32\[16,0\], which is empty"),
        (Narrow(), 1, r"Narrow returns \(2, 5\) for 2 examples in training"),
        (Classes(), 1, "logits of dtype int32, which have no gradient"),
        (Untrained(), 1, r"Untrained does not take the argument `train`. Define def __call__"),
        (Noisy(), 1, r'"noise".*make_rng\("dropout"\)'),
        (Reduced(dtype="bfloat16"), 1, "dtype=bfloat16 has no effect: .*computes nothing in it"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_part_that_is_wrong(model, num_devices, reason):
    with pytest.raises(InputError, match=reason):
        checked(model, num_devices)


@pytest.mark.parametrize("num_devices, average_decay", [(1, 0.0), (8, 0.9)])
def test_a_counter_is_kept(num_devices, average_decay):
    form = checked(Kept(start="int32", after="int32"), num_devices, average_decay)
    assert form.model_state["memory"]["kept"].dtype == jnp.int32


def test_the_users_own_error_comes_first_with_its_file_and_line():
    lines = pathlib.Path(__file__).read_text().splitlines()
    (number,) = (i for i, line in enumerate(lines, 1) if line.endswith("  # the mistake"))
    with pytest.raises(InputError) as error:
        checked(Mistaken())
    assert str(error.value).startswith(f"{__file__}, line {number}: TypeError: dot_general")
    assert str(error.value).endswith("images of 4 x 4 x 1 (height x width x channels).")


def test_boxes_are_opened():
    params = checked(Boxed()).params
    assert jax.tree.structure(params) == jax.tree.structure(checked(Head()).params)
