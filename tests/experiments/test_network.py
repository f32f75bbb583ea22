"""The network that a config describes: its learning rate, and settings that it cannot take."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from rethinking import cli, experiments, sharding
from rethinking.errors import InputError
from rethinking.experiments import network, optimizers, resident
from tests.experiments.trained import quickstart

ROOT = pathlib.Path(__file__).parents[2]


def test_learning_rate_of_table_2():
    """0.045 for 32 images, 1.44 for 1024; a ramp of five epochs; 0.94 every two epochs."""
    config = cli.parse_config(["--config=configs/table2.py:none"])
    steps_per_epoch = 1251
    rate = optimizers.learning_rate(config, steps_per_epoch)
    assert float(rate(0)) == pytest.approx(1.44 / (5 * steps_per_epoch))
    assert float(rate(5 * steps_per_epoch)) == pytest.approx(1.44 * 0.94**2, rel=1e-5)
    assert float(rate(20 * steps_per_epoch)) == pytest.approx(1.44 * 0.94**10, rel=1e-5)


class Plain(nn.Module):
    """A network without the fields dtype and bn_axis_name."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Scaled(nn.Module):
    """A network whose parameters have one dimension, and a field that nothing uses."""

    num_classes: int
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        scale = self.param("scale", nn.initializers.ones, (self.num_classes,))
        return x.reshape(len(x), -1)[:, : self.num_classes] * scale[None]


def build(num_devices=2, **fields):
    config = quickstart(num_devices=num_devices, **fields)
    mesh = sharding.device_mesh(num_devices)
    image = jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)
    return network.build(config, mesh, image, 10, 1437, 44)


PLAIN, SCALED = f"{__name__}:Plain", f"{__name__}:Scaled"


@pytest.mark.parametrize(
    "fields, reason",
    [
        (
            {"model__name": PLAIN, "dtype": "bfloat16"},
            "config.dtype=bfloat16 has no effect .*dtype",
        ),
        ({"model__name": PLAIN, "model__sync_batch_norm": True}, "no field bn_axis_name"),
        ({"model__name": "mlp_1x512", "model__sync_batch_norm": True}, "no field bn_axis_name"),
        ({"model__name": SCALED, "model__sync_batch_norm": True}, "not use its field bn_axis_name"),
        (
            {"model__name": SCALED, "model__sync_batch_norm": True, "num_devices": 1},
            "has no batch norm",
        ),
        ({"model__name": SCALED, "weight_decay": 0.5}, "config.weight_decay=0.5 has no effect"),
        ({"model__options": {"widht": 3}}, "no option 'widht'. Did you mean 'width'"),
        ({"model__options": {"name": "x"}}, "no option 'name'"),
        ({"epochs_per_decay": 0.01}, "less than one step: an epoch has 44"),
        ({"max_epochs": 1, "workers": 45}, "44 steps, so the network is never trained"),
    ],
)
def test_settings_without_effect_are_refused_before_training(fields, reason):
    with pytest.raises(InputError, match=reason):
        build(**fields)


def test_the_same_settings_are_taken_where_they_have_an_effect():
    build(model__name=PLAIN, weight_decay=0.5, max_epochs=1, workers=44)
    build(dtype="bfloat16", model__options={"width": 3})
    build(
        model__name="tests.training.test_steps:Normalized",
        model__sync_batch_norm=True,
        num_devices=2,
    )


def test_a_random_crop_of_the_whole_image_is_refused():
    config = quickstart(augment__crop=True, data__crop_size=8)
    with pytest.raises(InputError, match=r"config.augment.crop=True has no effect.*whole image"):
        resident.ResidentTrainer(config)


def test_committed_records_are_of_settings_that_have_an_effect():
    records = list((ROOT / "results").rglob("config.json"))
    assert records
    for record in records:
        there = json.loads(record.read_text())
        config = experiments.defaults(there.get("kind", "training"))
        with config.unlocked():
            config.update(ConfigDict(there))
        experiments.check(config)
