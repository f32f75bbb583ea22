"""Section 2.2: closed forms against all signs by brute force, and small networks through the command's own entry."""

import itertools
import json
import math
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from rethinking import cli, experiments
from rethinking.errors import InputError
from rethinking.experiments import rademacher, stability
from rethinking.kernels import gram
from rethinking.theory import complexity
from rethinking.training import margins

RNG = np.random.default_rng(0)


def all_signs(n):
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


class Constant(nn.Module):
    """A class of two functions on any sample, +1 and -1: its logits do not depend on the image."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(jnp.zeros((x.shape[0], 1)))


class Small(nn.Module):
    """A network of 32 hidden units."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(32)(x.reshape(x.shape[0], -1))))


def run(workdir, row, *overrides, deadline=math.inf):
    settings = cli.parse_config(
        [
            f"--config=configs/complexity.py:{row}",
            "--config.data.name=digits",
            "--config.data.crop_size=0",
            "--config.learning_rate=0.05",
            *overrides,
        ]
    )
    return experiments.run(settings, workdir, deadline)


SIGNS = (
    "rademacher+mlp_1x512",
    "--config.data.num_train=64",
    "--config.halvings=1",
    "--config.doublings=1",
    "--config.draws=2",
    f"--config.model.name={__name__}:Small",
)
REPLACED = (
    "stability+mlp_1x512+random_labels",
    "--config.data.num_train=96",
    "--config.data.num_test=40",
    "--config.replacements=2",
    "--config.max_epochs=4",
    f"--config.model.name={__name__}:Small",
)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_kernel_ball_is_the_sup_over_the_ball_and_below_its_bound():
    x = RNG.standard_normal((9, 4))
    signs = all_signs(9)
    k = gram.Gaussian(1.5)(x, x)
    # The sup of <f, sum sigma_i phi_i> / n over the ball, at f in that direction, evaluated on the sample.
    best = [2.0 * s @ (k @ s) / math.sqrt(s @ k @ s) / 9 for s in signs]
    assert complexity.kernel_ball(k, 2.0, signs) == pytest.approx(np.mean(best))
    bound = complexity.kernel_ball_bound(np.diag(k), 2.0)
    assert complexity.kernel_ball(k, 2.0, signs) <= bound == pytest.approx(2 / 3)
    assert complexity.linear_ball(x, 2.0, signs) == pytest.approx(
        complexity.kernel_ball(x @ x.T, 2.0, signs)
    )


@pytest.mark.parametrize("n, d, rank", [(10, 3, 3), (10, 3, 2), (6, 6, 6), (5, 12, 5)])
def test_linear_span_is_the_sup_over_functions_of_mean_square_one(n, d, rank):
    x = RNG.standard_normal((n, rank)) @ RNG.standard_normal((rank, d))
    signs = all_signs(n)
    basis = np.linalg.svd(x, full_matrices=False)[0][:, :rank]
    outputs = (signs @ basis) @ basis.T
    outputs *= math.sqrt(n) / np.linalg.norm(outputs, axis=1, keepdims=True)
    value = complexity.linear_span(x, signs)
    assert value == pytest.approx((signs * outputs).mean())
    assert value <= math.sqrt(rank / n) + 1e-12
    assert value == pytest.approx(complexity.linear_span(x.astype(np.float32), signs), rel=1e-4)


def test_linear_span_keeps_small_but_meaningful_directions_in_float32():
    """Singular values over four orders of magnitude, as natural images have them: full rank, so that all is fitted."""
    basis = np.linalg.qr(RNG.standard_normal((200, 40)))[0]
    x = (basis * np.logspace(0, -4, 40)).T.astype(np.float32)
    assert complexity.linear_span(x, np.sign(RNG.standard_normal((3, 40)))) == pytest.approx(1.0)


def test_interval_covers_a_class_known_exactly():
    """Two constant functions: the sup is |mean sigma|, and its expectation is a sum of binomials."""
    n, draws = 20, 5
    expected = sum(math.comb(n, k) * abs(2 * k - n) for k in range(n + 1)) / (n * 2**n)
    suprema = np.abs(RNG.choice([-1.0, 1.0], (400, draws, n)).mean(axis=2))
    intervals = [complexity.interval(each, n) for each in suprema]
    assert np.mean([low <= expected <= high for low, high in intervals]) >= 0.95
    low, high = complexity.interval(np.ones(5), 1000)
    assert (round(1 - low, 4), high) == (0.0384, 1.0)


@pytest.mark.parametrize("n", [4, 10])
def test_vc_bound_follows_from_sauers_lemma(n):
    """Not above n, however many draws are fitted, and not above d for a class that fits as many signs as d allows."""
    assert complexity.vc_at_least(n, 100_000, 100_000) == n
    assert complexity.vc_at_least(n, 5, 0) == 0
    for d in range(n):
        fraction = sum(scipy.special.comb(n, i) for i in range(d + 1)) / 2**n
        assert complexity.vc_at_least(n, 100_000, int(fraction * 100_000)) <= d
    assert complexity.vc_at_least(1000, 5, 5) == 502


def test_margins_and_losses_are_their_definitions():
    logits, labels = RNG.standard_normal((30, 4)), RNG.integers(0, 4, 30)
    for i, label in enumerate(labels):
        assert (
            margins.margins(logits, labels)[i]
            == logits[i, label] - np.delete(logits[i], label).max()
        )
    losses = complexity.losses(logits + 1e4, labels)
    np.testing.assert_allclose(
        losses, scipy.special.logsumexp(logits, 1) - logits[np.arange(30), labels], atol=1e-8
    )
    quantiles = margins.margin_quantiles(logits, labels)
    assert quantiles["margin_0.5"] == np.median(margins.margins(logits, labels))


def test_norms_are_those_of_the_reshaped_kernels():
    params = {
        "Conv_0": {"kernel": RNG.standard_normal((5, 5, 3, 16)), "bias": np.full(16, 9.0)},
        "Dense_0": {"kernel": RNG.standard_normal((48, 7)), "bias": np.full(7, 9.0)},
    }
    flat = [params["Conv_0"]["kernel"].reshape(75, 16), params["Dense_0"]["kernel"]]
    tops = [np.linalg.svd(kernel, compute_uv=False)[0] for kernel in flat]
    assert list(margins.spectral_norms(params).values()) == pytest.approx(tops)
    norms = margins.norms(params)
    assert norms["spectral_product"] == pytest.approx(np.prod(tops))
    assert norms["weight_norm"] == pytest.approx(
        np.linalg.norm(np.concatenate([k.ravel() for k in flat]))
    )


def test_changes_are_zero_for_equal_losses_and_know_whose_example_changed():
    before = RNG.random(6)
    replaced = np.arange(6) == 2
    assert set(complexity.changes(before, before, replaced).values()) == {0.0}
    after = before + np.array([0, 0, 3.0, 0, -6.0, 0])
    assert complexity.changes(before, after, replaced) == pytest.approx(
        {"max_change": 6.0, "mean_change": 1.5, "own_change": 3.0}
    )


def test_a_network_that_shatters_has_complexity_one(tmp_path):
    result = run(tmp_path / "run", *SIGNS)
    assert result["rademacher"] == result["rademacher_high"] == 1.0
    assert result["draws"] == result["num_fitted"] == 2
    assert 20 < result["vc_at_least"] < 64
    assert [point["num_train"] for point in result["curve"]] == [32, 64, 128]
    assert [point.get("rademacher") for point in result["curve"]] == [1.0, 1.0, None]
    assert result["linear_ball"] < 1 / math.sqrt(64) + 0.05
    assert result["kernel_ball"] <= 1.05 * result["kernel_ball_bound"] == pytest.approx(1.05 / 8)
    assert result["curve"][2]["linear_span"] < result["linear_span"] <= 1
    assert {
        "status",
        "seconds",
        "config_digest",
        "weight_norm",
        "spectral_product",
        "margin_0.5",
    } <= result.keys()
    assert result["status"] == "complete"
    assert result["margin_0.01"] > 0


def test_a_class_of_constants_has_the_complexity_of_the_signs_mean(tmp_path):
    result = run(
        tmp_path / "run",
        *SIGNS[:-1],
        f"--config.model.name={__name__}:Constant",
        "--config.max_epochs=10",
    )
    assert result["rademacher"] < 0.4
    assert result["num_fitted"] == result["vc_at_least"] == 0


def test_signs_are_fair_independent_and_belong_to_their_examples():
    indices = np.arange(1000)
    drawn = np.stack(
        [rademacher.signs(indices, seed, 2, draw) for seed in (0, 1) for draw in (0, 1)]
    )
    assert abs(drawn.mean() - 0.5) < 0.05
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.15
    np.testing.assert_array_equal(rademacher.signs(indices[500:], 0, 2, 1), drawn[1][500:])


def test_replacing_an_example_by_itself_changes_nothing():
    settings = cli.parse_config(
        [
            "--config=configs/complexity.py:stability+mlp_1x512",
            "--config.data.name=digits",
            "--config.data.crop_size=0",
            *REPLACED[1:],
        ]
    )
    twins = stability.Twins(settings)
    before, after = twins.original, list(twins.train(7, 7))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
    assert not np.array_equal(before[0].losses, before[-1].losses)


def test_the_control_sees_what_differs_between_two_trainings_on_the_same_set():
    settings = cli.parse_config(
        [
            "--config=configs/complexity.py:stability+mlp_1x512",
            "--config.data.name=digits",
            "--config.data.crop_size=0",
            *REPLACED[1:],
        ]
    )
    twins = stability.Twins(settings)
    assert {line["mean_change"] for line in twins.compare(None)} == {0.0}
    twins.original = list(twins.train(7, 22))  # as if the second training went another way
    start, *_, end = twins.compare(None)
    assert (
        start["max_change"] == 0 < end["mean_change"] < end["max_change"] and end["own_change"] == 0
    )


@pytest.mark.parametrize("arguments, kept", [(SIGNS, 3), (REPLACED, 7)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(arguments, kept, tmp_path):
    whole = run(tmp_path / "whole", *arguments)
    assert run(tmp_path / "whole", *arguments) == whole
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    text = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut" / "metrics.jsonl").write_text("".join(text[:kept]) + text[kept][:20])
    assert run(tmp_path / "cut", *arguments, deadline=0.0) is None
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")[:kept]
    again = run(tmp_path / "cut", *arguments)
    timeless = [
        {key: value for key, value in result.items() if key != "seconds"}
        for result in (whole, again)
    ]
    assert timeless[0] == timeless[1]
    assert lines(tmp_path / "cut")[:kept] == lines(tmp_path / "whole")[:kept]


def test_stability_has_a_curve_and_starts_from_no_change(tmp_path):
    result = run(tmp_path / "run", *REPLACED)
    curve = result["curve"]
    assert [point["epoch"] for point in curve] == list(range(5))
    assert [point["step"] for point in curve] == [0, 3, 6, 9, 12]
    assert curve[0]["max_change"] == curve[0]["changed_predictions"] == 0
    assert 0 < result["mean_change"] < result["max_change"]
    assert result["own_change"] <= result["max_change"]
    assert result["repeat_max_change"] == result["repeat_mean_change"] == 0  # on a CPU
    assert [
        line["epoch"] for line in lines(tmp_path / "run") if line["replacement"] is None
    ] == list(range(5))
    assert result["train_loss"] < curve[0]["train_loss"]
    assert {"status", "replacements", "test_accuracy", "weight_norm", "margin_0.5"} <= result.keys()


@pytest.mark.parametrize(
    "override, reason",
    [
        ("--config.measure=rademaker", "Did you mean 'rademacher'"),
        ("--config.draws=0", "config.draws"),
        ("--config.radius=-1.0", "config.radius"),
        ("--config.replacements=0", "config.replacements"),
        ("--config.doublings=9", "1,437 of digits"),
        ("--config.halvings=2", "config.batch_size=32"),
        ("--config.batch_size=0", "config.batch_size"),
        ("--config.eval.shifts=noise", "have no use for them"),
    ],
)
def test_bad_settings_are_refused(override, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        run(tmp_path / "run", *SIGNS, override)


def test_too_few_examples_to_replace_others_are_refused(tmp_path):
    with pytest.raises(InputError, match="1,437"):
        run(tmp_path / "run", *REPLACED, "--config.data.num_train=1436")
