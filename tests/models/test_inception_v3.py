"""Inception V3 against slim's sizes and parameter counts; test_pytorch.py checks its arithmetic.

Most tests only trace the network, because compiling it takes ten seconds.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from rethinking import models
from rethinking.errors import InputError
from rethinking.models.inception_v3 import InceptionV3, mean_pool
from rethinking.sharding import DATA_AXIS, device_mesh
from tests.models import networks
from tests.models.networks import NARROW_V3 as NARROW
from tests.models.networks import trained_v3 as trained

# Counted by hand from slim's listing. Batch norms have a scale and an offset, convolutions no bias.
BLOCK_PARAMETERS = {
    "Mixed_5b": 255_904,
    "Mixed_5c": 277_472,
    "Mixed_5d": 285_152,
    "Mixed_6a": 1_153_280,
    "Mixed_6b": 1_297_408,
    "Mixed_6c": 1_691_008,
    "Mixed_6d": 1_691_008,
    "Mixed_6e": 2_141_952,
    "Mixed_7a": 1_698_304,
    "Mixed_7b": 5_044_608,
    "Mixed_7c": 6_076_800,
    "AuxHead": (768 + 2) * 128 + (25 * 128 + 2) * 768 + 769 * 1000,
    "Logits": 2049 * 1000,
}
STEM_PARAMETERS = [29 * 32, (288 + 2) * 32, (288 + 2) * 64, (64 + 2) * 80, (720 + 2) * 192]
# Szegedy et al. (2015), Table 1, and the comments in slim's listing.
SIZES = {
    "Mixed_5b": (35, 35, 256),
    "Mixed_5c": (35, 35, 288),
    "Mixed_5d": (35, 35, 288),
    "Mixed_6a": (17, 17, 768),
    "Mixed_6b": (17, 17, 768),
    "Mixed_6e": (17, 17, 768),
    "Mixed_7a": (8, 8, 1280),
    "Mixed_7b": (8, 8, 2048),
    "Mixed_7c": (8, 8, 2048),
}


def shapes(model, size):
    """Shapes of a model's variables, initialized in evaluation mode, as a training state is."""
    return networks.shapes(model, *batch(size).shape[1:], train=False)


def batch(size, num=2):
    height, width = size if isinstance(size, tuple) else (size, size)
    return jax.ShapeDtypeStruct((num, height, width, 3), jnp.float32)


def traced(model, size, train, variables=None, **options):
    """Shapes of what the model returns."""
    apply = functools.partial(
        model.apply, train=train, rngs={"dropout": jax.random.key(0)}, **options
    )
    return jax.eval_shape(apply, variables or shapes(model, size), batch(size))


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameters_of_every_block():
    params = shapes(InceptionV3(1000, aux_head=True), 299)["params"]
    assert count(params) == 27_161_264
    assert {name: count(params[name]) for name in BLOCK_PARAMETERS} == BLOCK_PARAMETERS
    assert [count(params[f"ConvBlock_{i}"]) for i in range(5)] == STEM_PARAMETERS
    assert count(params) == sum(BLOCK_PARAMETERS.values()) + sum(STEM_PARAMETERS)


def test_parameters_without_the_scale_of_batch_norms():
    model = models.create("inception_v3", 1000, bn_scale=False, aux_head=True)
    params = dict(shapes(model, 299)["params"])
    assert count(params) == 27_143_152
    del params["AuxHead"]
    assert count(params) == 23_817_352


def test_sizes_at_299():
    model = InceptionV3(1000, aux_head=True)  # whose shapes another test needs too
    _, variables = traced(model, 299, False, capture_intermediates=True, mutable=["intermediates"])
    layers = variables["intermediates"]
    assert {name: layers[name]["__call__"][0].shape[1:] for name in SIZES} == SIZES
    stem = [layers[f"ConvBlock_{i}"]["__call__"][0].shape[1:] for i in range(5)]
    assert stem == [(149, 149, 32), (147, 147, 32), (147, 147, 64), (73, 73, 80), (71, 71, 192)]


def test_outputs_at_any_size():
    """Auxiliary logits are for training alone, so they are not returned in evaluation mode."""
    assert traced(NARROW, 75, False).shape == (2, 5)
    outputs = []
    outputs.append(traced(NARROW, 75, True, mutable=["batch_stats"])[0])
    init = functools.partial(NARROW.init_with_output, train=True)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    outputs.append(jax.eval_shape(init, keys, batch((299, 331)))[0])
    for logits, aux_logits in outputs:
        assert logits.shape == aux_logits.shape == (2, 5)


def test_without_the_auxiliary_head_training_returns_the_logits_alone():
    alone, variables = NARROW.clone(aux_head=False), dict(shapes(NARROW, 75))
    for collection, values in variables.items():
        variables[collection] = {name: values[name] for name in values if name != "AuxHead"}
    logits, _ = traced(alone, 75, True, variables, mutable=["batch_stats"])
    assert logits.shape == (2, 5)


@pytest.mark.parametrize("size", [74, (75, 74)])
def test_too_small_images_are_explained(size):
    with pytest.raises(InputError, match="Inception V3 needs images of at least 75x75 pixels"):
        shapes(NARROW, size)


def test_narrow_networks_keep_sixteen_features():
    scales = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes(NARROW, 75)["params"])
        if path[-1].key == "scale"
    ]
    # A tenth, rounded down, of 192, 320, 384, 448 and the auxiliary head's 768. The others have 16.
    assert collections.Counter(leaf.size for leaf in scales) == {
        16: 47,
        19: 30,
        32: 3,
        38: 13,
        44: 2,
        76: 1,
    }


def test_bfloat16_is_for_the_computation_alone():
    outputs, updated = traced(
        NARROW.clone(dtype=jnp.bfloat16),
        75,
        True,
        shapes(NARROW, 75),  # the same, as the test of the small networks shows
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, nn.Conv),
    )
    convolutions = jax.tree.leaves(updated["intermediates"])
    assert len(convolutions) == 96
    assert {leaf.dtype for leaf in convolutions} == {jnp.dtype("bfloat16")}
    stored = jax.tree.leaves((shapes(NARROW, 75), outputs, updated["batch_stats"]))
    assert {leaf.dtype for leaf in stored} == {jnp.dtype("float32")}


def test_every_batch_norm_is_synchronized_on_demand():
    """JAX accepts statistics as equal on all devices only if they were averaged over them.

    This takes no compilation. test_models.py compares the values, for the small networks.
    """

    def trace(model):
        apply = functools.partial(
            model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        specs = {"in_specs": (P(), P(DATA_AXIS)), "out_specs": (P(DATA_AXIS), P())}
        spread = jax.shard_map(apply, mesh=device_mesh(2), **specs)
        return jax.eval_shape(spread, shapes(NARROW, 75), batch(75))

    _, updated = trace(NARROW.clone(bn_axis_name=DATA_AXIS))
    assert len(jax.tree.leaves(updated)) == 2 * 96
    with pytest.raises(ValueError, match="out_specs"):
        trace(NARROW)


def test_dropout_acts_on_the_features_before_the_logits():
    variables, passes = trained()
    ((logits, aux_logits), updated), ((other_logits, other_aux_logits), _) = passes
    np.testing.assert_array_equal(aux_logits, other_aux_logits)
    assert (logits != other_logits).any()
    features = updated["intermediates"]["Dropout_0"]["__call__"][0]
    assert 0.1 < (features == 0).mean() < 0.35
    layer = variables["params"]["Logits"]
    expected = np.asarray(features) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_batch_statistics_move_slowly():
    variables, ((_, updated), _) = trained()
    before, after = variables["batch_stats"], updated["batch_stats"]
    assert jax.tree.structure(before) == jax.tree.structure(after)
    # The input has mean 0 and variance 1, so the first kernel alone determines the variance after
    # it.
    kernel = variables["params"]["ConvBlock_0"]["Conv_0"]["kernel"]
    variance = (kernel**2).sum((0, 1, 2))
    first = [stats["ConvBlock_0"]["BatchNorm_0"]["var"] for stats in (before, after)]
    np.testing.assert_allclose((first[1] - 0.9997 * first[0]) / 0.0003, variance, rtol=0.1)


def test_mean_pool_counts_pixels_within_the_image():
    ones = jnp.ones((1, 4, 3, 1), jnp.bfloat16)
    assert (mean_pool(ones) == 1).all()
    x = jnp.arange(12.0).reshape(1, 4, 3, 1)
    np.testing.assert_allclose(
        mean_pool(x)[0, :2, 0, 0], [np.mean([0, 1, 3, 4]), np.mean([0, 1, 3, 4, 6, 7])]
    )


def test_initialization_is_tensorflows():
    """Each layer's initializer is sampled. Drawing all kernels would take a minute to compile."""
    initializers = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.Conv | nn.Dense):
            initializers["/".join(context.module.path)] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(functools.partial(NARROW.init, train=False), jax.random.key(0), batch(75))
    special = {"Logits": 0.01, "AuxHead/ConvBlock_1/Conv_0": 0.01, "AuxHead/Dense_0": 0.001}
    assert len(initializers) == 98
    for path, initializer in initializers.items():
        stddev = special.get(path, 0.1)
        sample = np.asarray(initializer(jax.random.key(0), (100, 100)))
        # The deviation of a normal distribution that is cut off at two deviations.
        np.testing.assert_allclose(sample.std(), 0.8796 * stddev, rtol=0.02)
        assert np.abs(sample).max() <= 2 * stddev
