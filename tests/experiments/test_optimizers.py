"""Optimizers and schedules by config: what each field does, and what is refused without effect."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethinking import experiments, sharding
from rethinking.errors import InputError
from rethinking.experiments import network, optimizers, resident
from rethinking.training import optim
from tests.experiments.trained import final_state, lines, quickstart, untimed


def plain(config):
    """An optimizer with a rate of its own."""
    return optax.lion(config.learning_rate, weight_decay=config.weight_decay)


def scheduled(config, learning_rate):
    """AdamW as in this project, by other words."""
    return optax.adamw(learning_rate, weight_decay=config.weight_decay, mask=optim.decayed)


def demanding(config, temperature):
    """A function that nobody can call."""


def returns_nothing(config):
    """A function that forgets its result."""


def mistaken(config):
    return optax.sgd(config.learnin_rate)


def growing(config):
    return optax.GradientTransformation(
        lambda params: jnp.zeros(1),
        lambda grads, state, params: (grads, jnp.concatenate([state, state])),
    )


def scalar(config):
    return optax.GradientTransformation(
        lambda params: (), lambda grads, state, params: (jax.tree.map(jnp.sum, grads), state)
    )


def failing(config):
    def update(grads, state, params):
        raise RuntimeError("no update today")

    return optax.GradientTransformation(lambda params: (), update)


def keyed(config):
    return optax.GradientTransformation(
        lambda params: jax.random.key(0), lambda grads, state, params: (grads, state)
    )


@pytest.fixture
def standard_promotion():
    """Optax's Adam mixes dtypes, and other tests forbid that."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def own(function):
    return f"{__name__}:{function.__name__}"


def build(**fields):
    config = quickstart(**fields)
    experiments.check(config)
    image = jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)
    return network.build(config, sharding.device_mesh(1), image, 10, 1437, 44)


def rate(**fields):
    """The learning rate at the start of each of three epochs of ten steps, and at the end."""
    config = quickstart(max_epochs=3, learning_rate=0.2, **fields)
    schedule = optimizers.learning_rate(config, 10)
    return [float(schedule(step)) for step in (0, 10, 20, 30)]


def test_the_schedules():
    np.testing.assert_allclose(rate(decay_per_epoch=0.5), [0.2, 0.1, 0.05, 0.025], rtol=1e-6)
    constant = rate(schedule="constant", decay_per_epoch=0.95, warmup_epochs=0.5)
    np.testing.assert_allclose(constant, [0.2 / 5, 0.2, 0.2, 0.2], rtol=1e-6)
    cosine = rate(schedule="cosine", reference_batch_size=16)  # batches of 32 double the rate
    np.testing.assert_allclose(cosine, [0.4, 0.3, 0.1, 0], rtol=1e-5, atol=1e-8)


# The default, which quickstart changes.
STAIRCASE = {"decay_per_epoch": 0.95}
ADAMW = {"optimizer": "adamw", **STAIRCASE}
PLAIN, SCHEDULED = ({"optimizer": own(each), **STAIRCASE} for each in (plain, scheduled))


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'. Did you mean 'adamw'? One of your own"),
        (
            {**ADAMW, "momentum": 0.8},
            "config.momentum=0.8 has no effect with config.optimizer=adamw",
        ),
        ({"schedule": "cosine"}, "config.decay_per_epoch=0.98 has no effect"),
        (
            {"schedule": "constant", **STAIRCASE, "epochs_per_decay": 2.0},
            "config.epochs_per_decay=2.0 has no effect with config.schedule=constant",
        ),
        (
            {"schedule": "cosine", **STAIRCASE, "warmup_epochs": 3.0},
            "config.warmup_epochs=3.0 is all of the 132 steps of config.max_epochs=3",
        ),
        ({"schedule": "linear"}, "config.schedule: unknown value 'linear'"),
        ({"optimizer": "no_such_module:f"}, "importing no_such_module failed"),
        ({"optimizer": "json:lods"}, "json has no lods. Did you mean 'loads'"),
        ({"optimizer": "json:"}, "write the name as package.module:NAME"),
        ({"optimizer": own(demanding)}, "missing a required argument: 'temperature'. Define"),
        ({"optimizer": own(returns_nothing)}, "returns a NoneType. Return an optax"),
        ({"optimizer": own(mistaken)}, "Did you mean"),
        ({"optimizer": own(growing), **STAIRCASE}, "its state must be float32[1], but"),
        ({"optimizer": own(scalar), **STAIRCASE}, "the updates Dense_0/bias must be float32"),
        ({"optimizer": own(failing), **STAIRCASE}, "RuntimeError: no update today"),
        ({"optimizer": own(keyed), **STAIRCASE}, "a checkpoint holds numbers alone"),
        ({**PLAIN, "momentum": 0.5}, "config.momentum=0.5 has no effect"),
        ({**PLAIN, "schedule": "cosine"}, "config.schedule='cosine' has no effect"),
        ({"optimizer": own(plain)}, "config.decay_per_epoch=0.98 has no effect"),
        ({**SCHEDULED, "momentum": 0.5}, f"{own(scheduled)}, which does not read it"),
    ],
)
def test_what_has_no_effect_or_cannot_work_is_refused_before_training(fields, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        build(**{"learning_rate": 0.01} | fields)  # the default, which quickstart changes


def test_settings_that_an_optimizer_of_ones_own_reads_are_taken(standard_promotion):
    assert build(**PLAIN, weight_decay=0.1, learning_rate=0.03).learning_rate is None
    made = build(**SCHEDULED | {"schedule": "cosine", "learning_rate": 0.03, "workers": 2})
    np.testing.assert_allclose(made.learning_rate(0), 0.03, rtol=1e-6)


def test_an_optimizer_of_ones_own_trains_as_the_same_one_of_the_project(
    tmp_path, standard_promotion
):
    """AdamW by name and by import path: the same lines and the same state, bit for bit."""
    fields = {
        "data__num_train": 64,
        "data__num_test": 32,
        "model__options": {"width": 8},
        "learning_rate": 0.01,
        "schedule": "cosine",
        "weight_decay": 0.1,
        "workers": 2,
        "average_decay": 0.9,
    }
    for row, optimizer in (("by_name", ADAMW), ("by_path", SCHEDULED)):
        experiments.run(quickstart(**fields | optimizer), tmp_path / row)
    first, second = (list(map(untimed, lines(tmp_path / row))) for row in ("by_name", "by_path"))
    assert first == second
    rates = [line["learning_rate"] for line in first]
    np.testing.assert_allclose(rates, [0.01, 0.0075, 0.0025, 0], rtol=1e-5, atol=1e-9)
    states = (jax.tree.leaves(final_state(tmp_path / row)) for row in ("by_name", "by_path"))
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rate_of_its_own_is_not_recorded():
    trainer = resident.ResidentTrainer(quickstart(**PLAIN))
    assert trainer.learning_rate(0) is None
