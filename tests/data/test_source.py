"""The set that a name means, and the messages about sets that cannot be used."""

import shutil

import numpy as np
import pytest

from rethinking.data import arrays, source
from rethinking.errors import InputError
from tests.data.sets import SHAPE, assert_holds, without_train, write, write_features


def test_a_set_made_for_testing_has_no_training_images(planted):
    root, held = planted
    without_train(root)
    with pytest.raises(InputError, match="splits train and test"):
        arrays.load("planted", str(root))
    assert arrays.describe("planted", str(root), train=False).num_train == 0
    dataset = arrays.load("planted", str(root), train=False)
    assert dataset.train.images.shape == (0, *SHAPE)
    np.testing.assert_array_equal(dataset.test.images, held["test_images"])
    np.testing.assert_array_equal(
        arrays.load("planted", str(root), train=False).test.labels, held["test_labels"]
    )


def test_data_dir_from_the_environment(planted, monkeypatch):
    root, held = planted
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert_holds(arrays.load("planted"), held)
    with pytest.raises(InputError, match="Unknown data set 'planted'"):
        arrays.load("planted", str(root / "elsewhere"))


def test_newest_version_unless_one_is_named(planted):
    root, old = planted
    _, new = write(root, "10.0.0", seed=1)
    write(root, "9.0.0", seed=2)
    assert_holds(arrays.load("planted", str(root)), new)
    assert_holds(arrays.load("planted:1.0.0", str(root)), old)
    with pytest.raises(InputError, match=r"planted:2\.0\.0 is not prepared"):
        arrays.describe("planted:2.0.0", str(root))


def test_a_configuration_is_named_unless_it_is_the_only_one(planted):
    root, held = planted
    shutil.move(root / "planted" / "1.0.0", root / "planted" / "blue" / "1.0.0")
    for name in ("planted/blue", "planted", "planted:1.0.0"):
        assert_holds(arrays.load(name, str(root)), held)
    _, other = write(root, version="0.9.0", seed=1)
    # A set without configurations comes first, as TFDS sets were before they had any.
    assert_holds(arrays.load("planted", str(root)), other)
    shutil.rmtree(root / "planted" / "0.9.0")
    shutil.copytree(root / "planted" / "blue", root / "planted" / "red")
    assert_holds(arrays.load("planted/red", str(root)), held)
    with pytest.raises(
        InputError, match=r"several configurations. Name one: planted/blue, planted/red"
    ):
        arrays.load("planted", str(root))


@pytest.mark.parametrize(
    "name, message",
    [
        ("cifar11", r"Unknown data set 'cifar11'.*'cifar10'"),
        ("plantd", r"Did you mean 'planted'"),
        ("digit", r"Did you mean 'digits'"),
        ("", r"Unknown data set ''\. Known are: digits, planted"),
        ("planted/../x", r"Unknown data set"),
        (
            "mnist",
            r"mnist is not prepared in .*: python -m rethinking\.data\.prepare mnist --data_dir=",
        ),
    ],
)
def test_unknown_names(planted, name, message):
    root, _ = planted
    (root / "downloads").mkdir()
    for function in (arrays.describe, arrays.load):
        with pytest.raises(InputError, match=message):
            function(name, str(root))


def test_a_bucket_is_refused():
    with pytest.raises(InputError, match=r"data_dir gs://bucket/data: .* gcsfuse"):
        arrays.describe("mnist", "gs://bucket/data")


def test_tfrecord_files(tmp_path):
    root, _ = write(tmp_path, fileFormat="tfrecord")
    with pytest.raises(InputError, match=r"tfrecord files.*array_record is needed"):
        arrays.describe("planted", str(root))


@pytest.mark.parametrize("features", [{"label": None}, {"image": None}, {"label": {"text": {}}}])
def test_sets_that_are_not_image_classification(planted, features):
    root, _ = planted
    write_features(root / "planted" / "1.0.0", **features)
    with pytest.raises(InputError, match="not an image-classification set"):
        arrays.describe("planted", str(root))


def test_images_of_differing_sizes(planted):
    root, _ = planted
    for channels, remedy in ((1, "Prepare them at one size"), (3, "Stream the set")):
        write_features(root / "planted" / "1.0.0", shape=(-1, -1, channels))
        with pytest.raises(InputError, match=rf"differ in size\. {remedy}"):
            arrays.describe("planted", str(root))
    # Sets that are streamed are found none the less.
    assert source.find("planted", str(root)).info.example_shape == (-1, -1, 3)


def test_missing_shard(planted):
    root, _ = planted
    file = next((root / "planted" / "1.0.0").glob("*train*-00001-of-*"))
    file.unlink()
    for function in (arrays.describe, arrays.load):
        with pytest.raises(InputError, match=rf"{file.name} is missing"):
            function("planted", str(root))


@pytest.mark.parametrize("kept", [0, 1, 0.3, 0.5, -65536, -1])
def test_shard_that_is_cut_short(planted, kept):
    root, _ = planted
    file = next((root / "planted" / "1.0.0").glob("*train*-00001-of-*"))
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    for function in (arrays.describe, arrays.load):
        with pytest.raises(
            InputError, match=rf"{file.name} is damaged \(0 records where 20 should be"
        ):
            function("planted", str(root))


def test_shard_of_garbage_and_of_another_length(planted):
    root, _ = planted
    first, second = sorted((root / "planted" / "1.0.0").glob("*train*"))
    shutil.copy(first, second)
    with pytest.raises(InputError, match=rf"{second.name} is damaged \(30 records where 20"):
        arrays.describe("planted", str(root))
    second.write_bytes(np.random.default_rng(0).bytes(1 << 17))
    with pytest.raises(InputError, match=rf"{second.name} is damaged \(0 records where 20"):
        arrays.describe("planted", str(root))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": "planted", "splits": 3}'])
def test_damaged_description(planted, name, content):
    root, _ = planted
    (root / "planted" / "1.0.0" / name).write_text(content)
    with pytest.raises(InputError, match=r"planted/1\.0\.0 is damaged"):
        arrays.describe("planted", str(root))
