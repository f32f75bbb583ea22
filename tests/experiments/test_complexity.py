"""Section 2.2: small networks through the command's own entry."""

import json
import math
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rethinking import cli, experiments, runs
from rethinking.errors import InputError
from rethinking.experiments import rademacher, stability, trials


class Constant(nn.Module):
    """A class of two functions, +1 and -1: the logits do not depend on the image."""

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


def config_of(row, *overrides):
    return cli.parse_config(
        [
            f"--config=configs/complexity.py:{row}",
            "--config.data.name=digits",
            "--config.data.crop_size=0",
            "--config.learning_rate=0.05",
            *overrides,
        ]
    )


def run(workdir, row, *overrides, deadline=math.inf):
    return experiments.run(config_of(row, *overrides), workdir, deadline)


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
    twins = stability.Twins(config_of(*REPLACED))
    before, after = twins.original, list(twins.train(7, 7))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
    assert not np.array_equal(before[0].losses, before[-1].losses)


def test_the_control_measures_differences_between_two_trainings_on_the_same_set():
    twins = stability.Twins(config_of(*REPLACED))
    assert {line["mean_change"] for line in twins.compare(None)} == {0.0}
    twins.original = list(twins.train(7, 22))  # as if the second training took another course
    start, *_, end = twins.compare(None)
    assert start["max_change"] == 0
    assert 0 < end["mean_change"] < end["max_change"]
    assert end["own_change"] == 0


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
    assert again | {"seconds": 0} == whole | {"seconds": 0}
    assert lines(tmp_path / "cut")[:kept] == lines(tmp_path / "whole")[:kept]


def replaced(number, old, new):
    """Replaces a part of line `number`, which must be there."""

    def damage(texts):
        assert old in texts[number]
        return [*texts[:number], texts[number].replace(old, new, 1), *texts[number + 1 :]]

    return damage


DAMAGE = {
    "value": replaced(1, '"epoch": 1', '"epoch": 2'),
    "digit": replaced(1, "0.", "0.1"),
    "text": replaced(1, '"seconds": ', '"seconds": "x", "y": '),
    "digest": replaced(1, '"sha256"', '"sha257"'),
    "list": lambda texts: [texts[0], "[]", *texts[2:]],
    "missing": lambda texts: [texts[0], *texts[2:]],
    "twice": lambda texts: [texts[0], *texts],
    "half": lambda texts: [texts[0], texts[1][:50], *texts[2:]],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(workdir, *REPLACED)
    return workdir


def damage_file(workdir, damages):
    (workdir / "result.json").unlink()
    file = workdir / "metrics.jsonl"
    texts = file.read_text().splitlines()
    for damage in damages:
        texts = DAMAGE[damage](texts)
    file.write_text("".join(text + "\n" for text in texts))
    return file


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_dropped(damage, whole, tmp_path, caplog):
    shutil.copytree(whole, tmp_path / "cut")
    file = damage_file(tmp_path / "cut", [damage])
    with runs.open_run(
        file.parent, experiments.with_source(config_of(*REPLACED)), experiments.scientific
    ) as directory:
        trials.Log(directory)
        expected = lines(whole)
        assert directory.metrics == (expected if damage == "twice" else without(expected, 1))
        assert lines(file.parent) == directory.metrics
    assert (f"{file} is damaged: 1 of its" in caplog.text) == (damage != "missing")


def without(values, number):
    return [*values[:number], *values[number + 1 :]]


def test_dropped_lines_are_measured_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "cut")
    file = damage_file(tmp_path / "cut", ["value", "missing", "missing"])
    again = run(file.parent, *REPLACED)
    assert again | {"seconds": 0} == runs.read_result(whole) | {"seconds": 0}
    assert [line["epoch"] for line in lines(file.parent)] == [0, 1, 2, 3, 4] * 3
    assert runs.check_metrics(file.parent, again) is None


def test_stability_has_a_curve_and_starts_from_no_change(tmp_path):
    result = run(tmp_path / "run", *REPLACED)
    curve = result["curve"]
    assert [point["epoch"] for point in curve] == list(range(5))
    assert [point["step"] for point in curve] == [0, 3, 6, 9, 12]
    assert curve[0]["max_change"] == curve[0]["changed_predictions"] == 0
    assert result["eval_split"] == "test"
    assert 0 < result["mean_change"] < result["max_change"]
    assert 0 < result["own_change"] <= result["max_change"]
    assert result["repeat_max_change"] == result["repeat_mean_change"] == 0  # on a CPU
    control = [line for line in lines(tmp_path / "run") if line["replacement"] is None]
    assert [line["epoch"] for line in control] == list(range(5))
    replaced = [line for line in lines(tmp_path / "run") if line["replacement"] is not None]
    last = [line for line in replaced if line["epoch"] == 4]
    assert len(last) == result["replacements"] == 2
    assert result["max_change"] == max(line["max_change"] for line in last)
    assert result["mean_change"] == np.mean([line["mean_change"] for line in last])
    assert result["train_loss"] < curve[0]["train_loss"]
    assert {"status", "test_accuracy", "weight_norm", "margin_0.5"} <= result.keys()


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
        ("--config.eval.shifts=noise", "have no effect on the measures of section 2.2"),
    ],
)
def test_bad_settings_are_refused(override, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        run(tmp_path / "run", *SIGNS, override)
    assert not list(tmp_path.rglob("*.json*"))


def test_too_few_examples_to_replace_others_are_refused(tmp_path):
    with pytest.raises(InputError, match="Of the 1,437 examples of digits, 1,436 are for training"):
        run(tmp_path / "run", *REPLACED, "--config.data.num_train=1436")
    with runs.open_run(tmp_path / "run", config_of(*REPLACED), experiments.scientific):
        pass


@pytest.mark.parametrize(
    "row, override, reason",
    [
        (REPLACED, "draws=6", "config.draws=6 has no effect with config.measure=stability"),
        (REPLACED, "halvings=1", "config.halvings=1 has no effect"),
        (REPLACED, "bandwidth=2.0", "config.bandwidth=2.0 has no effect"),
        (REPLACED, "stop_when_fit=True", "config.stop_when_fit=True has no effect"),
        (REPLACED, "eval_epochs=2", "config.eval_epochs=2 has no effect"),
        (SIGNS, "replacements=6", "config.replacements=6 has no effect"),
        (SIGNS, "data.num_test=9", "config.data.num_test=9 has no effect"),
        (SIGNS, "randomize.labels=0.5", "config.randomize.labels=0.5 has no effect"),
        (SIGNS, "stop_when_fit=False", "config.fit_accuracy=1.0 has no effect"),
        (SIGNS, "halvings=2", "leaves 16 examples, fewer than config.batch_size=32"),
        (SIGNS, "decay_per_epoch=1.0", "config.epochs_per_decay=2.0 has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused(row, override, reason):
    more = ["--config.epochs_per_decay=2.0"] if "decay" in override else []
    with pytest.raises(InputError, match=re.escape(reason)):
        experiments.check(config_of(*row, *more, f"--config.{override}"))


@pytest.mark.parametrize(
    "row, wrong, right",
    [
        (REPLACED, "--config.replacements=60000", "--config.replacements=1"),
        (SIGNS, "--config.doublings=9", "--config.doublings=0"),
    ],
)
def test_a_refused_run_leaves_its_folder_to_the_corrected_command(row, wrong, right, tmp_path):
    with pytest.raises(InputError):
        run(tmp_path / "run", *row, wrong)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    deadline = 0.0  # the run begins and stops
    assert run(tmp_path / "run", *row, right, deadline=deadline) is None
    assert (tmp_path / "run" / "config.json").exists()
