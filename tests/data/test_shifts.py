"""Distorted test sets: their values, and runs that are evaluated on them."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from rethinking import cli, experiments
from rethinking.data import arrays, shifts
from rethinking.errors import InputError
from tests.data import sets
from tests.data.own_sets import write_folder

N, SIZE = 40, 16


@pytest.fixture
def test_set():
    random = np.random.default_rng(0)
    smooth = np.linspace(60, 190, SIZE)[None, :, None, None] + random.uniform(
        -20, 20, (N, 1, SIZE, 3)
    )
    return arrays.Split(smooth.astype(np.uint8), np.zeros(N, np.int32), np.arange(100, 100 + N))


@pytest.mark.parametrize("strength, deviation", [(1, 0.04), (2, 0.08), (3, 0.16)])
def test_noise_has_its_variance_and_depends_on_the_index_alone(strength, deviation, test_set):
    noisy = shifts.build(f"noise={strength}", test_set, seed=1)
    added = noisy.images.astype(float) - test_set.images
    assert added.std() == pytest.approx(255 * deviation, rel=0.03)
    assert abs(added.mean()) < 1.0
    part = arrays.Split(test_set.images[10:], test_set.labels[10:], test_set.indices[10:])
    np.testing.assert_array_equal(
        shifts.build(f"noise={strength}", part, seed=1).images, noisy.images[10:]
    )
    assert not np.array_equal(
        shifts.build(f"noise={strength}", test_set, seed=2).images, noisy.images
    )


@pytest.mark.parametrize("strength, factor", [(1, 0.75), (2, 0.5), (3, 0.25)])
def test_contrast_scales_each_channels_spread_about_its_mean(strength, factor, test_set):
    changed = shifts.build(f"contrast={strength}", test_set, seed=0).images
    np.testing.assert_allclose(changed.std((1, 2)), factor * test_set.images.std((1, 2)), atol=0.5)
    np.testing.assert_allclose(changed.mean((1, 2)), test_set.images.mean((1, 2)), atol=0.5)


def test_blur_agrees_with_pillows_inside(test_set):
    """Pillow's Gaussian is three box filters. Away from the edges it is close to ours."""
    blurred = shifts.build("blur=3", test_set, seed=0).images
    for ours, image in zip(blurred, test_set.images, strict=True):
        theirs = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))
        assert np.abs(ours[5:-5, 5:-5].astype(int) - theirs[5:-5, 5:-5]).max() <= 3


def test_translation_moves_every_image_by_the_distance_to_one_of_four_corners(test_set):
    moved = shifts.build("translation=2", test_set, seed=0).images
    corners = set()
    for ours, image in zip(moved, test_set.images, strict=True):
        inside = {
            (y, x): np.array_equal(
                ours[4:-4, 4:-4], image[4 + y : SIZE - 4 + y, 4 + x : SIZE - 4 + x]
            )
            for y in (-4, 0, 4)
            for x in (-4, 0, 4)
        }
        assert sum(inside.values()) == 1
        corners |= {corner for corner, found in inside.items() if found}
    assert corners == {(-4, -4), (-4, 4), (4, -4), (4, 4)}


def test_names(tmp_path):
    assert shifts.parse("blur, noise=2,cifar10_1") == [
        "blur=1",
        "blur=2",
        "blur=3",
        "noise=2",
        "cifar10_1",
    ]
    assert shifts.parse("") == []
    with pytest.raises(InputError, match="'noise'"):
        shifts.parse("nose=1")
    with pytest.raises(InputError, match="1, 2 or 3"):
        shifts.parse("noise=4")


def run(workdir, *overrides):
    return experiments.run(
        cli.parse_config(
            [
                "--config=configs/quickstart.py:true_labels",
                "--config.num_devices=1",
                "--config.max_epochs=5",
                *overrides,
            ]
        ),
        workdir,
    )


def test_a_run_is_also_evaluated_on_them_at_its_end(tmp_path):
    result = run(tmp_path, "--config.eval.shifts=noise,contrast=1,digits")
    accuracy = {name: measured["accuracy"] for name, measured in result["shifts"].items()}
    assert list(accuracy) == ["noise=1", "noise=2", "noise=3", "contrast=1", "digits"]
    assert accuracy["digits"] == result["test_accuracy"]
    assert accuracy["noise=1"] > accuracy["noise=3"]
    assert "shifts" not in run(tmp_path / "plain")


def test_a_run_is_evaluated_on_a_set_that_was_made_for_testing_alone(tmp_path):
    for version in ("1.0.0", "2.0.0"):
        root, _ = sets.write(tmp_path / "tfds", version)
    sets.without_train(root, "2.0.0")
    result = run(
        tmp_path / "run",
        "--config.data.name=planted:1.0.0",
        "--config.eval.shifts=planted:2.0.0",
        f"--config.data.data_dir={root}",
    )
    assert result["shifts"]["planted:2.0.0"]["accuracy"] == result["test_accuracy"]


def test_a_set_whose_classes_have_other_numbers_is_refused(tmp_path):
    """Also one that has no names, which nobody can compare."""
    x, y = np.zeros((30, 8, 8, 3), np.uint8), np.arange(30) % 3
    held = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    ours = write_folder(tmp_path / "ours", held, names=["airplane", "bird", "car"])
    other = write_folder(tmp_path / "other", held, names=["airplane", "automobile", "bird"])
    texts = held | {
        name: np.array(["airplane", "bird", "car"])[y] for name in ("y_train", "y_test")
    }
    np.savez(tmp_path / "texts.npz", **texts)
    np.savez(tmp_path / "numbers.npz", **held)
    name = f"--config.data.name={ours}"
    with pytest.raises(InputError, match=r"Class 1 of .*other is 'automobile', but .* is 'bird'"):
        run(tmp_path / "run", name, f"--config.eval.shifts={other}")
    fits = f"--config.eval.shifts={tmp_path}/texts.npz,{tmp_path}/numbers.npz"
    assert len(run(tmp_path / "run", name, fits, "--config.batch_size=10")["shifts"]) == 2


def test_sets_that_do_not_fit_are_refused(tmp_path, tfds_dir):
    with pytest.raises(InputError, match=r"mnist has 10 classes and .* of shape \(28, 28, 1\)"):
        run(
            tmp_path / "one",
            "--config.eval.shifts=mnist",
            f"--config.data.data_dir={tfds_dir('mnist')}",
        )
    with pytest.raises(InputError, match="noise"):
        run(tmp_path / "other", "--config.eval.shifts=nois=1")


@pytest.mark.parametrize(
    "change, named",
    [
        ("eval.shifts=translation,blur=2", "eval.shifts=blur"),
        ("augment.brightness=0.1", "augment.brightness"),
    ],
)
def test_values_beyond_black_and_white_are_not_clipped_but_refused(tmp_path, change, named):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8, 8, 1)), np.arange(40) % 10
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    name = f"--config.data.name={tmp_path}/set.npz"
    with pytest.raises(InputError, match=rf"values from -\d.* for config.{named} black is 0"):
        run(tmp_path / "run", name, f"--config.{change}")
    fits = [name, "--config.eval.shifts=translation=1", "--config.augment.flip=true"]
    assert run(tmp_path / "run", *fits, "--config.max_epochs=1")["shifts"]
