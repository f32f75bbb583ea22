"""Small rows of Table 3, through the command's own entry."""

import functools
from collections import namedtuple

import numpy as np
import pytest

from rethinking import cli, distributed, experiments, provenance, runs
from rethinking.data import arrays
from rethinking.data.source import Dataset
from rethinking.errors import InputError
from rethinking.experiments import kernel_backend, kernel_system
from rethinking.kernels import cholesky, gram, ridge


def run(tmp_path, row, *overrides):
    config = cli.parse_config([f"--config=configs/table3.py:{row}", *overrides])
    return experiments.run(config, tmp_path / row)


def few_filters(row, num=40):
    """The overrides for `num` filters in four blocks, where the row has filters."""
    if "random_conv" not in row:
        return []
    return [
        f"--config.features.num_filters={num}",
        f"--config.features.filters_per_block={num // 4}",
    ]


def test_row_is_the_dense_solution_with_the_fields_of_the_contract(tmp_path):
    settings = (
        "--config.data.name=digits",
        "--config.kernel.bandwidth=2",
        "--config.num_devices=2",
    )
    result = run(tmp_path, "mnist", *settings)
    data = arrays.load("digits")
    x, z = (split.images.reshape(len(split.labels), -1) / 255 for split in (data.train, data.test))
    alpha = np.linalg.solve(gram.Gaussian(2.0)(x, x), np.eye(10)[data.train.labels])
    assert result["test_error"] == np.mean(
        (gram.Gaussian(2.0)(z, x) @ alpha).argmax(1) != data.test.labels
    )
    assert result["norm"] == pytest.approx(np.sqrt(np.sum(alpha * np.eye(10)[data.train.labels])))
    assert result["train_error"] == 0
    assert result["residual"] < 1e-10
    assert {
        "status",
        "condition",
        "gram_seconds",
        "factor_seconds",
        "solve_seconds",
        "peak_bytes",
        "config_digest",
    } <= result.keys()
    assert result["compile_seconds"] > 0
    assert run(tmp_path, "mnist", *settings) == result


def test_ridge_is_chosen_on_held_out_training_examples(tmp_path):
    settings = (
        "--config.data.name=digits",
        "--config.kernel.bandwidth=2",
        "--config.num_devices=1",
    )
    result = run(tmp_path, "mnist+ridge", *settings)
    errors = result["held_out_errors"]
    assert errors[f"{result['ridge']:g}"] == min(errors.values())
    train = arrays.load("digits").train
    # Two thirds are fitted, one third is held out.
    rows = np.random.default_rng(0).permutation(1437)
    x, targets = train.images[rows].reshape(1437, -1) / 255, np.eye(10)[train.labels[rows]]
    matrix = gram.Gaussian(2.0)(x[:958], x[:958]) + 0.3 * np.eye(958)
    outputs = gram.Gaussian(2.0)(x[958:], x[:958]) @ np.linalg.solve(matrix, targets[:958])
    assert errors["0.3"] == np.mean(outputs.argmax(1) != train.labels[rows[958:]])


@pytest.mark.parametrize(
    "row, override, n, num_features",
    [
        ("cifar10+random_conv", "--config.features.num_filters=33", 600, "594"),
        ("cifar10", "--config.kernel.name=linear", 3073, "3,072"),
    ],
)
def test_fewer_features_than_examples_are_refused_before_the_data_are_loaded(
    row, override, n, num_features, tmp_path, tfds_dir, monkeypatch
):
    folder = f"--config.data.data_dir={tfds_dir('cifar10')}"
    monkeypatch.setattr(arrays, "load", None)
    with pytest.raises(InputError, match=f"{num_features} features cannot interpolate"):
        run(tmp_path, row, folder, f"--config.data.num_train={n}", override)


def test_ridges_too_small_for_few_features_are_passed_over(tmp_path, tfds_dir, monkeypatch):
    monkeypatch.setattr(ridge, "RIDGES", (1e-12, 0.1))
    result = run(
        tmp_path,
        "cifar10+random_conv+ridge",
        f"--config.data.data_dir={tfds_dir('cifar10')}",
        "--config.data.num_train=600",
        "--config.data.num_test=10",
        "--config.features.num_filters=2",
        "--config.num_devices=1",
    )
    assert result["ridge"] == 0.1 and result["held_out_errors"].keys() == {"0.1"}


FACTOR = ["factor.0", "factor.1", "factor.2", "factor.3", "seconds.0"]


@pytest.mark.parametrize(
    "row, num_looks, kept",
    [
        ("mnist", 2, []),
        ("mnist", 4, ["factor.0", "factor.1", "seconds.0"]),
        ("mnist+random_centers", 2, []),  # before the block of centers
        ("mnist+random_centers", 8, FACTOR),  # in the certificate
        ("cifar10+random_conv+ridge", 4, []),
        ("cifar10+random_conv+ridge", 12, ["seconds.0", *(f"sum_2.{g}" for g in range(4))]),
    ],
)
def test_a_solve_ends_when_its_time_is_up_and_the_same_call_continues(
    row, num_looks, kept, tmp_path, tfds_dir, monkeypatch
):
    overrides = [
        f"--config.data.data_dir={tfds_dir(row.partition('+')[0])}",
        "--config.data.num_train=60",
        "--config.data.num_test=10",
        "--config.num_devices=1",
        *few_filters(row, 8),
    ]
    config = cli.parse_config([f"--config=configs/table3.py:{row}", *overrides])
    looks = []

    def sigterm_noticed():
        looks.append(1)
        return len(looks) == num_looks

    monkeypatch.setattr(distributed, "sigterm_noticed", sigterm_noticed)
    four_panels = functools.partial(cholesky.make_backend, num_panels=4)
    monkeypatch.setattr(cholesky, "make_backend", four_panels)
    assert experiments.run(config, tmp_path / "run") is None
    assert len(looks) == num_looks and not (tmp_path / "run" / "result.json").exists()
    solve = tmp_path / "run" / "solve"
    assert sorted(file.name for file in solve.glob("*")) == kept
    result, whole = (experiments.run(config, tmp_path / name) for name in ("run", "whole"))
    assert not solve.exists()
    for field, value in whole.items():
        if not field.endswith(("seconds", "bytes")):
            assert result[field] == value, field


def test_finished_parts_outlive_errors_a_small_disk_and_a_commit(tmp_path, monkeypatch, caplog):
    """Until the result is written, whatever happens before, in or after the solve."""
    caplog.set_level("INFO", logger="rethinking")
    overrides = [
        "--config.data.name=digits",
        "--config.data.num_train=60",
        "--config.num_devices=1",
    ]
    config = cli.parse_config(["--config=configs/table3.py:mnist", *overrides])
    four_panels = functools.partial(cholesky.make_backend, num_panels=4)
    monkeypatch.setattr(cholesky, "make_backend", four_panels)
    folder, looks = tmp_path / "run", iter([False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "sigterm_noticed", lambda: next(looks))
        assert experiments.run(config, folder) is None

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(provenance, "revision", lambda: "another")
    free = namedtuple("Usage", "free")(0)
    monkeypatch.setattr("psutil.disk_usage", lambda path: free)
    for owner, name in [(kernel_system, "load"), (runs.RunDirectory, "finish")]:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, interrupt)
            experiments.run(config, folder)
        other = config.copy_and_resolve_references()
        other.kernel.bandwidth = 7.0
        with pytest.raises(InputError, match="bandwidth"):
            experiments.run(other, folder)
    caplog.clear()
    result = experiments.run(config, folder)
    assert "Continuing after 2 of 4 panels." in caplog.text
    assert not (folder / "solve").exists()
    whole = experiments.run(config, tmp_path / "whole")
    assert (result["test_error"], result["norm"]) == (whole["test_error"], whole["norm"])


@pytest.mark.parametrize(
    "row, least, most",
    [
        ("mnist", 0.03, 0.2),
        ("mnist+gabor", 0.0, 0.1),
        ("mnist+random_centers", 0.1, 0.6),
        ("mnist+random_test_labels", 0.7, 1.0),
        ("cifar10+random_conv+ridge", 0.4, 0.85),
    ],
)
def test_rows(row, least, most, tmp_path, tfds_dir):
    name = row.partition("+")[0]
    result = run(
        tmp_path,
        row,
        f"--config.data.data_dir={tfds_dir(name)}",
        "--config.data.num_train=600",
        "--config.data.num_test=300",
        "--config.num_devices=1",
        *few_filters(row),
    )
    assert least < result["test_error"] < most
    assert "ridge" in row or result["train_error"] == 0


@pytest.mark.parametrize(
    "override, reason",
    [
        ("--config.kernel.bandwidth=-1.0", "kernel.bandwidth"),
        ("--config.kernel.name=gausian", "Did you mean 'gaussian'"),
        ("--config.dtype=bfloat16", "config.dtype"),
        ("--config.ridge=-1.0", "config.ridge"),
        ("--config.features.name=random_conv", "kernel.name=linear"),
        ("--config.kernel.bandwidth=1e300", r"must be at least 1e-10 and at most 1e\+10"),
        ("--config.kernel.bandwidth=1e-300", r"must be at least 1e-10 and at most 1e\+10"),
        ("--config.kernel.bandwidth=1e9", "is 1 for each of 256 pairs.*smaller bandwidth"),
        ("--config.kernel.bandwidth=1e-9", "is 0 for 16 examples .*larger bandwidth"),
        ("--config.random_centers=2 --config.kernel.bandwidth=0.03", "all centers.*larger band"),
        ("--config.kernel.offset=nan", "kernel.offset=nan: must be a finite number"),
        ("--config.num_devices=99", "num_devices=99"),
    ],
)
def test_bad_settings_are_refused(override, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        run(tmp_path, "mnist", "--config.data.name=digits", *override.split())
    # The folder is free for the corrected command.
    assert not (tmp_path / "mnist" / "config.json").exists()


@pytest.mark.parametrize(
    "free, reason",
    [
        (10**5, r"n = 1437 .* GB free.*config\.dtype"),
        (4 * 10**7, r"choosing the ridge on 1437 examples takes 0\.07 GB .* has 0\.04 GB.*\.ridge"),
    ],
)
def test_too_little_memory_is_refused_before_the_data_are_loaded(
    free, reason, tmp_path, monkeypatch
):
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("Memory", "available")(free))
    monkeypatch.setattr(arrays, "load", None)
    with pytest.raises(InputError, match=reason):
        run(tmp_path, "mnist+gabor+ridge", "--config.data.name=digits")


@pytest.mark.parametrize(
    "settings, said",
    [
        ("kernel.name=linear kernel.bandwidth=3.0", "kernel.bandwidth=3.0 .*kernel.name=linear"),
        ("kernel.name=polynomial kernel.bandwidth=3.0", "kernel.bandwidth=3.0 .*polynomial"),
        ("kernel.degree=3", "kernel.degree=3 .*kernel.name=gaussian"),
        ("kernel.name=linear kernel.offset=0.5", "kernel.offset=0.5 .*kernel.name=linear"),
        ("features.num_filters=40", "features.num_filters=40 .*features.name=pixels"),
        ("features.filters_per_block=7", "features.filters_per_block=7 .*features.name=pixels"),
        ("ridge=0.5 choose_ridge=true", "ridge=0.5 .*choose_ridge=True"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, said):
    overrides = [f"--config.{setting}" for setting in settings.split()]
    config = cli.parse_config(["--config=configs/table3.py:mnist", *overrides])
    with pytest.raises(InputError, match=f"{said}.* Leave it at .*, or change config"):
        experiments.check(config)


@pytest.mark.parametrize("row", ["cifar10", "mnist+gabor", "cifar10+random_conv"])
def test_another_kernel_for_a_row_does_not_ask_for_another_bandwidth(row):
    override = "--config.kernel.name=linear"
    experiments.check(cli.parse_config([f"--config=configs/table3.py:{row}", override]))


@pytest.mark.parametrize("change", [{"kernel.offset": 0.5}, {"kernel.bandwidth": 9.0}])
def test_a_setting_with_an_effect_is_accepted(change):
    config = experiments.defaults("kernels")
    config.kernel.name = "polynomial" if "kernel.offset" in change else "laplacian"
    config.update_from_flattened_dict(change)
    experiments.check(config)


@pytest.mark.parametrize(
    "settings, said",
    [
        ("features.name=random_conv kernel.name=linear", "20x20 pixels, and these have 8x8"),
        ("kernel.name=linear", "64 features cannot interpolate 1,437"),
        ("kernel.name=linear features.name=gabor", "784 features cannot interpolate 1,437"),
        ("kernel.name=linear random_centers=2", "64 features cannot interpolate 1,437"),
        ("kernel.name=polynomial kernel.degree=1", "65 monomials .* larger config.kernel.degree"),
        ("kernel.name=polynomial kernel.offset=0.0 data.num_train=0", None),
        ("random_centers=1000", "1,437,000 random centers takes .*GB free"),
        ("choose_ridge=true data.num_train=2", "choosing the ridge on 2 examples"),
    ],
)
def test_what_cannot_work_is_refused_before_the_data_are_loaded(settings, said, monkeypatch):
    monkeypatch.setattr(arrays, "load", None)
    free = namedtuple("Memory", "available")(4 * 10**8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    overrides = [f"--config.{setting}" for setting in settings.split()]
    config = cli.parse_config(
        ["--config=configs/table3.py:mnist", "--config.data.name=digits", *overrides]
    )
    experiments.check(config)
    if said is None:  # C(64 + 1, 2) = 2,080 monomials are enough.
        kernel_backend.make_backend(config)
        return
    with pytest.raises(InputError, match=said):
        kernel_backend.make_backend(config)


@pytest.mark.parametrize(
    "settings, said",
    [
        ("features.name=gabor data.name=cifar10", "grey images, and those of cifar10 have 3"),
        (
            "features.name=random_conv kernel.name=linear features.num_filters=100001",
            "100,000 are drawn",
        ),
    ],
)
def test_features_that_images_do_not_have_are_refused(settings, said, tfds_dir, monkeypatch):
    monkeypatch.setattr(arrays, "load", None)
    settings = [f"--config.{setting}" for setting in settings.split()]
    folder = f"--config.data.data_dir={tfds_dir('mnist')}"
    config = cli.parse_config(["--config=configs/table3.py:mnist", folder, *settings])
    with pytest.raises(InputError, match=said):
        kernel_backend.make_backend(config)


def test_repeated_images_are_refused_before_their_features_are_computed(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 1), dtype=np.uint8)
    images[5] = images[1]
    split = arrays.Split(images, np.arange(6, dtype=np.int32), np.arange(6))
    dataset = Dataset("made up", split, split, 6)
    monkeypatch.setattr(arrays, "load", lambda *_, **__: dataset)
    config = experiments.defaults("kernels")
    config.kernel.name, config.features.name = "linear", "random_conv"
    config.features.num_filters = 3
    with pytest.raises(InputError, match=r"different label \(1 and 5\)"):
        kernel_system.load(config)
    config.ridge = 0.1
    assert kernel_system.load(config).net is not None
