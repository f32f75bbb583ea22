"""Kernels, linear models, complexity measures and constructions on vectors and on tokens."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler

from rethinking import cli, experiments
from rethinking.errors import InputError
from rethinking.theory import linear
from tests.experiments import kinds


def config_of(row, name, *overrides):
    settings = [f"data.name={name}", "num_devices=1", *overrides]
    return cli.parse_config(
        [f"--config=configs/{row}", *(f"--config.{setting}" for setting in settings)]
    )


def complexity(row, name, *overrides):
    return config_of(
        f"complexity.py:{row}",
        name,
        "data.crop_size=0",
        "learning_rate=0.05",
        "batch_size=16",
        *overrides,
    )


def standardized():
    """The wines as scikit-learn standardizes them: training set, labels, test set, labels."""
    (train, labels), (test, test_labels) = kinds.wine()
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), labels, scaler.transform(test), test_labels


def test_kernels_on_vectors_are_those_of_scikit_learn_on_standardized_vectors(tmp_path):
    config = config_of("table3.py:mnist", kinds.WINE, "kernel.bandwidth=3.0", "ridge=0.1")
    result = experiments.run(config, tmp_path)
    train, labels, test, test_labels = standardized()
    # exp(-||x - z||^2 / (2 bandwidth^2)), of which the diagonal is 1.
    oracle = KernelRidge(alpha=0.1, kernel="rbf", gamma=1 / 18).fit(train, np.eye(3)[labels])
    expected = np.mean(oracle.predict(test).argmax(1) != test_labels)
    assert result["test_error"] == expected < 0.1
    assert result["num_examples"] == 120


def test_linear_models_on_vectors_are_those_of_numpy_on_standardized_vectors(tmp_path):
    settings = ["data.num_train=0", "data.num_test=0", "steps=10"]
    settings += ["features.num_frequencies=150", "features.bandwidth=3.0"]
    result = experiments.run(config_of("linear.py:mnist+fourier", kinds.WINE, *settings), tmp_path)
    train, labels, test, test_labels = standardized()
    points = linear.fourier_features(
        np.concatenate([train, test]), 150, 3.0, np.random.default_rng(0)
    )
    weights = np.linalg.pinv(points[:120]) @ np.eye(3)[labels]
    smallest, *_ = result["solutions"]
    assert smallest["norm"] == pytest.approx(np.linalg.norm(weights), rel=1e-3)
    assert smallest["train_error"] == 0
    predicted = (points[120:] @ weights).argmax(1)
    assert smallest["test_error"] == np.mean(predicted != test_labels) < 0.3


def test_constructions_on_vectors(tmp_path):
    result = experiments.run(config_of("expressivity.py:mnist", kinds.WINE), tmp_path)
    assert result["train_error"] == 0
    assert result["num_weights"] == 2 * 120 + 13


@pytest.mark.slow
def test_rademacher_complexity_on_vectors(tmp_path):
    settings = ["data.num_train=32", "draws=1", "halvings=0", "doublings=0"]
    result = experiments.run(complexity("rademacher+mlp_1x512", kinds.WINE, *settings), tmp_path)
    assert result["rademacher"] == result["num_fitted"] == 1
    # A linear function of 13 features explains about the fraction 13 / 32 of the signs' squares.
    assert result["linear_span"] == pytest.approx(np.sqrt(13 / 32), abs=0.2)


@pytest.mark.slow
def test_stability_on_tokens(tmp_path):
    settings = ["data.num_train=64", "data.num_test=30", "replacements=1", "max_epochs=2"]
    config = complexity(
        "stability+mlp_1x512", kinds.SENTENCES, f"model.name={kinds.TOKENS}", *settings
    )
    result = experiments.run(config, tmp_path)
    assert result["repeat_max_change"] == 0 < result["mean_change"] < result["max_change"]


@pytest.mark.parametrize(
    "config, reason",
    [
        (("table3.py:mnist", kinds.SENTENCES), "config.kind=kernels uses linear functions"),
        (
            ("table3.py:mnist+gabor", kinds.WINE),
            "gabor is for images, but .*wine has vectors of 13",
        ),
        (("table3.py:cifar10+random_conv", kinds.WINE), "features.name=random_conv is for images"),
        (("linear.py:mnist", kinds.SENTENCES), ".*sentences has sequences of 12 tokens"),
        (
            ("expressivity.py:mnist", kinds.SENTENCES),
            "config.kind=expressivity uses linear functions",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(config, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        experiments.run(config_of(*config), tmp_path)


def test_rademacher_complexity_refuses_tokens(tmp_path):
    with pytest.raises(InputError, match=r"config.measure=rademacher uses linear functions"):
        experiments.run(complexity("rademacher+mlp_1x512", kinds.SENTENCES), tmp_path)
