"""Networks against the paper's parameter counts; their inputs, outputs and names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from rethinking import models
from rethinking.errors import InputError
from rethinking.sharding import DATA_AXIS, device_mesh
from rethinking.training import optim
from tests.models.networks import X, images, shapes, trained, variables_of, x_of

# Appendix A, for 28x28x3 and 10 classes; WRN 28-1 from the author's demo repository; ResNet-18 as
# commonly counted for CIFAR10. The Vision Transformer's count is its docstring's formula.
PARAMETERS = {
    "inception": 1_649_402,
    "inception_no_bn": 1_649_402,
    "alexnet": 1_387_786,
    "mlp_1x512": 1_209_866,
    "mlp_3x512": 1_735_178,
    "wide_resnet_28_1": 369_498,
    "resnet_18": 11_173_962,
    "vit_patch4": 48 * 192 + 192 + (49 + 2) * 192 + 6 * (12 * 192**2 + 13 * 192) + 12 * 192 + 10,
}
# For 299x299x3 and 1000 classes: TensorFlow's recipe. The rest of its tests are in
# test_inception_v3.py.
IMAGENET_PARAMETERS = {"inception_v3": 23_834_568}
WITH_BATCH_NORM = {"inception", "wide_resnet_28_1", "resnet_18"}
# Their layers are those of the other networks, so some tests only trace these. Convolutions.
TRACED = {"inception_no_bn": 19, "wide_resnet_28_1": 27, "resnet_18": 20}


def test_every_model_has_a_known_count():
    assert models.MODELS.keys() == PARAMETERS.keys() | IMAGENET_PARAMETERS.keys()


def assert_weight_decay_acts_on_exactly_the_kernels(params):
    """And on the Vision Transformer's table of positions."""
    for path, decays in jax.tree_util.tree_leaves_with_path(optim.decayed(params)):
        assert decays is (path[-1].key in ("kernel", "positions")), path


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    variables = shapes(models.create(name, 10), 28, 28, 3)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert ("batch_stats" in variables) == (name in WITH_BATCH_NORM)
    assert_weight_decay_acts_on_exactly_the_kernels(variables["params"])


@pytest.mark.parametrize("name", IMAGENET_PARAMETERS)
def test_parameter_counts_for_imagenet(name):
    variables = shapes(models.create(name, 1000), 299, 299, 3)
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == IMAGENET_PARAMETERS[name]
    )
    assert_weight_decay_acts_on_exactly_the_kernels(variables["params"])


@pytest.mark.parametrize(
    ("size", "num_classes"), [((28, 28, 3), 10), ((8, 8, 1), 10), ((32, 32, 3), 100)]
)
@pytest.mark.parametrize("name", PARAMETERS)
def test_logits_follow_the_data(name, size, num_classes):
    model = models.create(name, num_classes, dtype=jnp.bfloat16)
    variables = shapes(model, *size)
    x = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    logits = jax.eval_shape(functools.partial(model.apply, train=False), variables, x)
    assert (logits.shape, logits.dtype) == ((2, num_classes), jnp.float32)


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - TRACED.keys()))
def test_bfloat16_computes_nearly_the_same(name):
    expected, _ = trained(name)
    low, updated = trained(name, jnp.bfloat16)
    leaves = jax.tree.leaves(
        (shapes(models.create(name, 10, jnp.bfloat16), *x_of(name).shape[1:]), low, updated)
    )
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    difference = jnp.linalg.norm(low - expected) / jnp.linalg.norm(expected)
    # The difference is not zero, because the computation is in bfloat16.
    assert 1e-5 < difference < 0.1


@pytest.mark.parametrize("name, num_convolutions", TRACED.items())
def test_every_convolution_is_in_bfloat16(name, num_convolutions):
    model = models.create(name, 10, jnp.bfloat16)
    apply = functools.partial(
        model.apply,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, nn.Conv),
    )
    variables = shapes(model, 28, 28, 3)
    logits, updated = jax.eval_shape(
        apply, variables, jax.ShapeDtypeStruct((2, 28, 28, 3), "float32")
    )
    convolutions = jax.tree.leaves(updated["intermediates"])
    assert len(convolutions) == num_convolutions
    assert {leaf.dtype for leaf in convolutions} == {jnp.dtype("bfloat16")}
    stored = jax.tree.leaves((variables, logits, updated.get("batch_stats")))
    assert {leaf.dtype for leaf in stored} == {jnp.dtype("float32")}


def test_kernels_have_the_variance_of_glorot_and_bengio():
    model = models.create("alexnet", 10)
    params = jax.jit(functools.partial(model.init, train=True))(
        jax.random.key(0), images(1, 28, 28, 3)
    )["params"]
    for layer in jax.tree.leaves(params, is_leaf=lambda node: "kernel" in node):
        fan_in, fan_out = (layer["kernel"].size // layer["kernel"].shape[axis] for axis in (-1, -2))
        # At least four standard deviations of the estimate of the variance. A normal distribution
        # would need as much, and the kernels' distribution has shorter tails.
        tolerance = 4 * (2 / layer["kernel"].size) ** 0.5
        np.testing.assert_allclose(
            layer["kernel"].var() * (fan_in + fan_out) / 2, 1, rtol=tolerance
        )
        assert not layer["bias"].any()


@pytest.mark.parametrize("name", ["inception", "wide_resnet_28_1"])
def test_evaluation_does_not_depend_on_the_batch(name):
    evaluate = jax.jit(functools.partial(models.create(name, 10).apply, train=False))
    alone, among_others = (evaluate(variables_of(name), x)[:4] for x in (X, X.at[4:].set(0)))
    np.testing.assert_allclose(alone, among_others, atol=1e-5 * jnp.abs(alone).max())


def test_synchronized_batch_norm_equals_one_device():
    mesh, name = device_mesh(8), "inception"

    def spread(bn_axis_name, stats_spec):
        apply = functools.partial(
            models.create(name, 10, bn_axis_name=bn_axis_name).apply,
            train=True,
            mutable=["batch_stats"],
        )
        specs = {"in_specs": (P(), P(DATA_AXIS)), "out_specs": (P(DATA_AXIS), stats_spec)}
        return jax.jit(jax.shard_map(apply, mesh=mesh, **specs))(variables_of(name), X)

    expected, expected_stats = trained(name)
    logits, stats = spread(DATA_AXIS, P())
    np.testing.assert_allclose(logits, expected, atol=1e-4 * jnp.abs(expected).max())
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), stats, expected_stats
    )
    independent, _ = spread(None, P(DATA_AXIS))
    assert jnp.abs(independent - expected).max() > 0.1 * jnp.abs(expected).max()


@pytest.mark.parametrize("name", sorted(WITH_BATCH_NORM & TRACED.keys()))
def test_every_batch_norm_is_synchronized_on_demand(name):
    """JAX accepts statistics as equal on all devices only if they were averaged over them."""

    def trace(bn_axis_name):
        model = models.create(name, 10, bn_axis_name=bn_axis_name)
        apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        specs = {"in_specs": (P(), P(DATA_AXIS)), "out_specs": (P(DATA_AXIS), P())}
        spread = jax.shard_map(apply, mesh=device_mesh(2), **specs)
        images = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
        return jax.eval_shape(spread, shapes(models.create(name, 10), 8, 8, 3), images)

    assert jax.tree.leaves(trace(DATA_AXIS))
    with pytest.raises(ValueError, match="out_specs"):
        trace(None)


class Own(nn.Module):
    """A user's own network, with some of the fields that networks may have."""

    num_classes: int
    hidden: int = 3

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.Dense(self.hidden)(x.mean((1, 2))))


class Demanding(Own):
    """A network that cannot be built from its name alone."""

    temperature: float = dataclasses.field(kw_only=True)


def test_own_module_by_import_path():
    model = models.create(f"{__name__}:Own", 7, dtype=jnp.bfloat16, bn_axis_name="data")
    assert (type(model), model.num_classes) == (Own, 7)
    assert model.init_with_output(jax.random.key(0), images(2, 8, 8, 3), train=True)[0].shape == (
        2,
        7,
    )


def test_options_are_fields_of_the_network():
    assert models.create(f"{__name__}:Own", 7, hidden=5).hidden == 5
    with pytest.raises(
        InputError, match=r"network inception_v3 has no option 'dropuot'. Did you mean 'dropout'"
    ):
        models.create("inception_v3", 10, dropuot=0.2)
    for field in ("name", "parent"):  # Flax's own fields
        with pytest.raises(InputError, match=f"has no option '{field}'"):
            models.create("mlp_1x512", 10, **{field: None})


def test_a_mistake_in_the_users_file_is_shown_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "mistaken_syntax.py").write_text("x = 1\nclass Net(:\n")
    (tmp_path / "mistaken_name.py").write_text("import jax\n\nNet = jax.no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, start in {
        "mistaken_syntax": f"{tmp_path}/mistaken_syntax.py, line 2: SyntaxError: invalid syntax",
        "mistaken_name": f"{tmp_path}/mistaken_name.py, line 3: AttributeError: module 'jax'",
    }.items():
        with pytest.raises(InputError) as error:
            models.create(f"{name}:Net", 10)
        assert str(error.value).startswith(start)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inceptoin", "Did you mean 'inception"),
        ("no_such_package.module:Net", "importing no_such_package.module failed .*PYTHONPATH"),
        (f"{__name__}:Owns", "has no Owns. Did you mean 'Own'"),
        ("json:Net", "defines no network"),
        (f"{__name__}:images", "derived from flax.linen.Module"),
        (f"{__name__}:nn", "nn is not a network"),
        ("json:JSONDecoder", "derived from flax.linen.Module"),
        (f"{__name__}:Demanding", "'temperature'. Give that field a default"),
        (":Net", "package.module:NAME"),
        ("package:", "package.module:NAME"),
    ],
)
def test_wrong_names_are_explained(name, message):
    with pytest.raises(InputError, match=message):
        models.create(name, 10)


@pytest.mark.parametrize(
    "name", sorted(PARAMETERS.keys() - {"mlp_1x512", "mlp_3x512", "vit_patch4"})
)
def test_too_small_images_are_explained(name):
    shapes(models.create(name, 10), 4, 4, 3)
    with pytest.raises(InputError, match=r"at least 4x4 pixels.*these are 4x3"):
        shapes(models.create(name, 10), 4, 3, 3)


def test_sizes_that_the_vision_transformer_cannot_cut_are_explained():
    shapes(models.create("vit_patch4", 10), 4, 8, 3)
    with pytest.raises(InputError, match=r"patches of 4x4 pixels; these are 14x12. Choose"):
        shapes(models.create("vit_patch4", 10), 14, 12, 3)
    with pytest.raises(InputError, match="width of 192 among 5 heads"):
        shapes(models.create("vit_patch4", 10, num_heads=5), 8, 8, 3)


def test_mlp_takes_any_size():
    assert shapes(models.create("mlp_1x512", 10), 1, 1, 1)["params"]["Dense_0"]["kernel"].shape == (
        1,
        512,
    )
