"""Runs on vectors and on tokens: a real table of numbers, and made-up sentences."""

import math

import jaxtyping
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from rethinking import experiments
from rethinking.data import shifts, vectors
from rethinking.errors import InputError
from rethinking.experiments import examples
from rethinking.experiments.resident import ResidentTrainer
from rethinking.experiments.streamed import StreamedTrainer
from tests.experiments import kinds
from tests.experiments.trained import quickstart


def wine(row="true_labels", **fields):
    return quickstart(
        row, **{"data__name": kinds.WINE, "batch_size": 20, "max_epochs": 60} | fields
    )


def sentences(row="true_labels", **fields):
    fields = {"batch_size": 20, "max_epochs": 30, "learning_rate": 0.1} | fields
    return quickstart(row, data__name=kinds.SENTENCES, model__name=kinds.TOKENS, **fields)


def is_chance(accuracy, num_classes, n):
    chance = 1 / num_classes
    return abs(accuracy - chance) < 4 * math.sqrt(chance * (1 - chance) / n)


@pytest.mark.parametrize("row", ["true_labels", "random_labels"])
def test_an_mlp_on_a_table_of_numbers_simply_works(row, tmp_path):
    result = experiments.run(wine(row, stop_when_fit=True), tmp_path)
    assert result["num_params"] == 13 * 512 + 512 + 512 * 3 + 3
    assert result["train_accuracy"] >= 0.99
    if row == "true_labels":
        assert result["test_accuracy"] > 0.9
    else:
        assert is_chance(result["test_accuracy"], 3, 58)


@pytest.mark.parametrize(
    "row, generalizes",
    [
        ("true_labels", True),
        ("random_labels", False),
        # The classes differ in the order of their tokens alone.
        pytest.param("random_pixels", False, marks=pytest.mark.slow),
    ],
)
def test_a_network_with_an_embedding_learns_20_classes_of_sentences(row, generalizes, tmp_path):
    result = experiments.run(sentences(row, stop_when_fit=True), tmp_path)
    # The vocabulary has 12 tokens, each with an embedding of 16 numbers in each of 12 places.
    assert result["num_params"] == 12 * 12 * 16 + (12 * 16 + 1) * 128 + 129 * 20
    assert result["train_accuracy"] >= 0.99
    if generalizes:
        assert result["test_accuracy"] > 0.7
    else:
        assert is_chance(result["test_accuracy"], 20, 400)


def test_vectors_are_standardized_as_by_scikit_learn():
    seen = examples.load(wine())
    (train, _), (test, _) = kinds.wine()
    scaler = StandardScaler().fit(train)
    for ours, theirs in ((seen.train, train), (seen.test, test)):
        assert ours.images.dtype == np.float32
        np.testing.assert_allclose(ours.images, scaler.transform(theirs), atol=1e-5)
    plain = examples.load(wine(data__whiten=False))
    np.testing.assert_array_equal(plain.train.images, train.astype(np.float32))


def test_standardizing_leaves_constant_features_alone():
    train = np.full((7, 3), 0.1, np.float32)
    train[:, 1] = 1e8 + 8 * np.arange(7)
    train[:, 2] = 1e-30 * np.arange(7)
    test = np.full((1, 3), 2.1, np.float32)
    seen, other = vectors.standardize(train, test)
    expected = (np.arange(7) - 3) / 2
    np.testing.assert_allclose(seen, np.stack([0 * expected, expected, expected], 1), atol=1e-6)
    assert other[0, 0] == pytest.approx(2)


def test_shuffled_and_random_features_are_those_of_the_standardized_table():
    plain = examples.load(wine()).train.images
    shuffled = examples.load(wine("shuffled_pixels")).train.images
    order = [int(np.flatnonzero((plain == column[:, None]).all(0))[0]) for column in shuffled.T]
    assert sorted(order) == list(range(13)) != order
    mixed = examples.load(wine("random_pixels")).train.images
    np.testing.assert_array_equal(np.sort(mixed, 1), np.sort(plain, 1))


def test_tokens_reach_the_network_as_they_are():
    seen = examples.load(sentences())
    assert seen.train.images.dtype == np.int32
    np.testing.assert_array_equal(seen.train.images, kinds.sentences()[0][0])


WINE = f"{kinds.WINE} has vectors of 13 features"
SENTENCES = f"{kinds.SENTENCES} has sequences of 12 tokens"


@pytest.mark.parametrize(
    "config, reason",
    [
        ((wine, {"data__crop_size": 4}), f"config.data.crop_size=4 is for images, but {WINE}. Set"),
        ((wine, {"augment__flip": True}), f"config.augment.flip=True is for images, but {WINE}"),
        ((wine, {"augment__hue": 0.1}), f"config.augment.hue=0.1 is for images, but {WINE}"),
        ((wine, {"eval__shifts": "noise"}), "config.eval.shifts=noise=1 distorts images"),
        ((wine, {"model__name": "alexnet"}), "Small AlexNet takes images"),
        ((wine, {"model__name": "inception"}), "Small Inception takes images"),
        ((wine, {"model__name": "wide_resnet_28_1"}), "Wide ResNet takes images"),
        ((wine, {"model__name": "resnet_18"}), "ResNet takes images"),
        ((wine, {"model__name": "vit_patch4"}), "The Vision Transformer takes images"),
        ((wine, {"data__stream": True}), "cannot be streamed, because its examples are not images"),
        (
            (wine, {"model__name": kinds.TOKENS}),
            f"needs vocab_size, which is given only for sequences of tokens, but {WINE}. Choose",
        ),
        ((sentences, {"data__crop_size": 4}), f"is for images, but {SENTENCES}"),
        ((sentences, {"eval__shifts": kinds.SENTENCES}), f"is not for tokens, and {SENTENCES}"),
        ((sentences, {"data__whiten": False}), f"has no effect, because {SENTENCES}"),
        ((sentences, {"row": "gaussian"}), f"pixels=gaussian needs numbers, but {SENTENCES}"),
    ],
)
def test_what_makes_no_sense_for_a_set_is_refused_by_name(config, reason, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    make, fields = config
    config = make(**fields)
    trainer = StreamedTrainer if config.data.stream else ResidentTrainer
    with pytest.raises(InputError) as error:
        trainer(config)
    assert reason in str(error.value)


def test_an_mlp_refuses_tokens():
    config = quickstart(data__name=kinds.SENTENCES, batch_size=20)
    with pytest.raises(InputError, match=r"MLP takes images or vectors .* tokens of int32"):
        ResidentTrainer(config)


def test_another_set_of_vectors_is_a_shifted_test_set():
    """It is standardized by the training set, so the same wines are the same examples."""
    config = wine(eval__shifts=kinds.WINE)
    plain = examples.load(config).test

    def shift(test):
        return shifts.build(kinds.WINE, test, 0)

    np.testing.assert_array_equal(examples.load(config, shift).test.images, plain.images)
