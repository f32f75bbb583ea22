"""What every kind of experiment evaluates: a split with labels, or images held out of training."""

import numpy as np
import pytest

from rethinking import experiments, randomize
from rethinking.data import arrays, shifts
from rethinking.data.description import HELD_OUT
from rethinking.data.splits import hold_out
from rethinking.errors import InputError
from rethinking.experiments import data_set, examples, kernel_system, streamed
from tests.data.streams import CLASSES
from tests.data.streams import NUM as NUM_STREAMED
from tests.data.streams import write as write_pictures
from tests.data.test_splits import write as write_splits
from tests.experiments.trained import quickstart

NUM = 1437  # training images of digits


def make(kind, **fields):
    """The default config of a kind on digits; `data__num_train=5` sets config.data.num_train."""
    config = experiments.defaults(kind)
    fields = {"num_devices": 1, "data__name": "digits"} | fields
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
    )
    experiments.check(config)
    return config


def test_labels_on_disk_decide_what_a_held_out_image_is_and_indices_what_a_random_label_is():
    whole = arrays.load("digits").train
    corrupted = randomize.corrupt_labels(whole.labels, whole.indices, 10, 0.5, 7)
    train, test = hold_out(NUM, 0.2)
    for seed in (0, 1):
        settings = {"randomize__labels": 0.5, "randomize__seed": 7, "data__test_fraction": 0.2}
        found = examples.load(make("training", seed=seed, **settings))
        np.testing.assert_array_equal(found.train.indices, train)
        np.testing.assert_array_equal(found.train.labels, corrupted[train])
        np.testing.assert_array_equal(found.test.indices, test)
        np.testing.assert_array_equal(found.test.labels, whole.labels[test])
        np.testing.assert_array_equal(found.test.images, whole.images[test])
    assert (corrupted != whole.labels).mean() > 0.4


def test_streamed_labels_too(tmp_path):
    _, labels = write_pictures(tmp_path)["train"]
    config = make(
        "training",
        data__name="pictures",
        data__data_dir=str(tmp_path),
        data__stream=True,
        data__test_fraction=0.3,
        randomize__labels=1.0,
    )
    found = streamed.load_data(config)
    train, test = hold_out(NUM_STREAMED, 0.3)
    np.testing.assert_array_equal(found.train.indices, train)
    np.testing.assert_array_equal(found.test.indices, test)
    expected = randomize.corrupt_labels(labels, np.arange(NUM_STREAMED), CLASSES, 1.0, 0)
    np.testing.assert_array_equal(found.train.corrupt(labels[train], train), expected[train])
    assert found.test.corrupt is None
    assert [found.test.records.read(int(index))[1] for index in test] == labels[test].tolist()


def test_a_run_evaluates_the_held_out_images(tmp_path):
    config = quickstart(max_epochs=1, data__test_fraction=0.25)
    result = experiments.run(config, tmp_path)
    assert result["eval_split"] == HELD_OUT
    num_test = round(0.25 * NUM)
    for part, size in (("test", num_test), ("train", NUM - num_test)):
        num_correct = result[f"{part}_accuracy"] * size
        assert num_correct == pytest.approx(round(num_correct), abs=1e-3)
    assert 0.5 < result["test_accuracy"] < 1


def test_shifted_test_sets_are_made_of_the_held_out_images():
    _, test = hold_out(NUM, 0.25)
    found = examples.load(
        make("training", data__test_fraction=0.25),
        lambda split: shifts.build("contrast=1", split, seed=0),
    )
    np.testing.assert_array_equal(found.test.indices, test)
    whole = arrays.load("digits").train.images[test].astype(float)
    mean = whole.mean((1, 2, 3), keepdims=True)
    assert np.abs(found.test.images - (mean + 0.75 * (whole - mean))).max() <= 0.51


def test_random_labels_of_held_out_images_do_not_repeat_those_of_training_images():
    config = make(
        "kernels",
        data__test_fraction=0.2,
        random_test_labels=True,
        randomize__labels=1.0,
        ridge=1.0,
    )
    labels = kernel_system.load(config).labels
    expected = randomize.corrupt_labels(np.zeros(NUM, int), np.arange(NUM), 10, 1.0, 0)
    np.testing.assert_array_equal(labels, expected[np.concatenate(hold_out(NUM, 0.2))])


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("kernels", {"data__test_fraction": 0.5}),
        ("linear", {"data__test_fraction": 0.5, "steps": 10}),
        ("linear", {"data__eval_split": "test", "steps": 10}),
    ],
)
def test_the_other_kinds_say_what_they_evaluated(tmp_path, kind, fields):
    config = make(kind, data__num_train=20, data__num_test=4, **fields)
    expected = config.data.eval_split or HELD_OUT
    assert experiments.run(config, tmp_path)["eval_split"] == expected


@pytest.mark.parametrize(
    "kind, fields, message",
    [
        ("training", {"data__test_fraction": 1.0}, r"test_fraction=1\.0: must be .* below 1"),
        ("training", {"data__test_fraction": -0.1}, r"test_fraction=-0\.1: must be at least 0"),
        ("kernels", {"data__test_fraction": 0.1, "data__eval_split": "test"}, "Set one of the two"),
        ("linear", {"data__eval_split": "train"}, "would evaluate the training examples"),
        ("expressivity", {"data__eval_split": "test"}, "evaluates no test set"),
        ("expressivity", {"data__test_fraction": 0.1}, "evaluates no test set"),
        ("complexity", {"data__test_fraction": 0.1}, "evaluates no test set"),
    ],
)
def test_settings_that_do_nothing_or_cannot_work_are_refused(kind, fields, message):
    with pytest.raises(InputError, match=message):
        make(kind, **fields)


@pytest.mark.parametrize("kind", ["expressivity", "complexity"])
def test_kinds_that_evaluate_nothing_take_sets_without_a_test_set(tmp_path, kind):
    root = write_splits(tmp_path, {"train": 40, "test": 9}, {"test"})
    config = make(kind, data__name="mixed", data__data_dir=root)
    assert data_set.describe(config).num_train == 40
    if kind == "complexity":
        assert len(examples.load(config).train.labels) == 40
    else:
        assert experiments.run(config, tmp_path / "run")["num_points"] == 40


def test_a_new_field_changes_no_digest():
    assert "data.eval_split" not in experiments.scientific(quickstart())
    plain = experiments.digest(quickstart())
    for field, value in (("data__eval_split", "test"), ("data__test_fraction", 0.5)):
        assert experiments.digest(quickstart(**{field: value})) != plain
