"""Whole sets in memory against TFDS itself and scikit-learn, and their cache."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rethinking.data import arrays, source
from rethinking.errors import InputError
from tests.data.sets import CLASSES, SHAPE, assert_holds, write, write_features


def test_digits_are_the_same_bytes_as_ever():
    """Committed records and the quickstart depend on these values and their order."""
    dataset = arrays.load("digits")
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    assert digest.hexdigest() == "62edfdd1877b6c485af3e3d8533eaf90b373020e96799aa07afd111fbc0ef76b"


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    digits = load_digits()
    dataset = arrays.load("digits")
    info = arrays.describe("digits")
    assert dataset.train.images.shape == (1437, 8, 8, 1) and dataset.train.images.dtype == np.uint8
    assert (
        (len(dataset.train.labels), len(dataset.test.labels))
        == (info.num_train, info.num_test)
        == (1437, 360)
    )
    ours = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 64) * (16 / 255)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])

    def rows(images, labels):
        return sorted(map(tuple, np.column_stack([images, labels]).astype(int).tolist()))

    assert rows(np.rint(ours), labels) == rows(digits.data, digits.target)
    again = arrays.load("digits", seed=5)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)


def test_num_train_keeps_a_seeded_nested_subset():
    everything = arrays.load("digits").train
    small, large = (arrays.load("digits", num_train=n, seed=3).train for n in (100, 200))
    np.testing.assert_array_equal(small.indices, large.indices[:100])
    np.testing.assert_array_equal(small.images, everything.images[small.indices])
    np.testing.assert_array_equal(small.labels, everything.labels[small.indices])
    assert len(np.unique(large.indices)) == 200
    assert np.any(small.indices != arrays.load("digits", num_train=100, seed=4).train.indices)
    assert len(arrays.load("digits", num_train=100).test.labels) == 360


@pytest.mark.parametrize("num_train", [1438, -1])
def test_too_large_and_negative_num_train(num_train):
    with pytest.raises(InputError, match="1,437"):
        arrays.load("digits", num_train=num_train)


def test_planted_set(planted):
    root, held = planted
    info = arrays.describe("planted", str(root))
    assert info == source.Info(num_train=50, num_test=15, example_shape=SHAPE, num_classes=CLASSES)
    dataset = arrays.load("planted", str(root))
    assert dataset.num_classes == CLASSES and dataset.train.labels.dtype == np.int32
    assert_holds(dataset, held)
    assert_holds(arrays.load("planted", str(root)), held)


def test_validation_serves_where_there_is_no_test(tmp_path):
    root, held = write(tmp_path, test="validation")
    assert_holds(arrays.load("planted", str(root)), held)


SETS = {"mnist": ((28, 28, 1), 60_000, 10_000), "cifar10": ((32, 32, 3), 50_000, 10_000)}


@pytest.mark.parametrize("name", SETS)
def test_check_of_prepared_sets(name, tfds_dir):
    shape, num_train, num_test = SETS[name]
    assert arrays.describe(name, tfds_dir(name)) == source.Info(num_train, num_test, shape, 10)


def assert_bit_identical_to_tfds(images, labels, name, split, root):
    import tensorflow_datasets as tfds

    chosen = np.random.default_rng(0).integers(0, 10_000, 300).tolist()
    theirs = tfds.data_source(name, split=split, data_dir=root).__getitems__(chosen)
    np.testing.assert_array_equal(images[chosen], [example["image"] for example in theirs])
    np.testing.assert_array_equal(labels[chosen], [example["label"] for example in theirs])


@pytest.mark.parametrize("name", SETS)
def test_prepared_test_images_are_bit_identical_to_tfds(name, tfds_dir):
    """Decoding these 10,000 takes a seventh of the time that the whole set takes."""
    root = tfds_dir(name)
    images, labels = source.find(name, root).read_all("test")
    assert images.shape == (10_000, *SETS[name][0])
    assert_bit_identical_to_tfds(images, labels, name, "test", root)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_prepared_sets_are_bit_identical_to_tfds(name, tfds_dir):
    root = tfds_dir(name)
    dataset = arrays.load(name, root)
    for split in ("train", "test"):
        ours = getattr(dataset, split)
        assert ours.images.shape == (SETS[name][1 if split == "train" else 2], *SETS[name][0])
        assert_bit_identical_to_tfds(ours.images, ours.labels, name, split, root)
    if name == "cifar10":
        assert set(np.bincount(dataset.train.labels)) == {5000} and set(
            np.bincount(dataset.test.labels)
        ) == {1000}


def test_second_load_reads_the_cache_and_imports_nothing_heavy(planted, cache):
    root, _ = planted
    arrays.load("planted", str(root))
    assert [path.name.startswith("planted-") for path in cache.iterdir()] == [True]
    code = f"""if True:
        import sys
        from rethinking.data import arrays
        arrays.describe("planted", {str(root)!r})
        arrays.load("planted", {str(root)!r})
        assert not {{"tensorflow", "tensorflow_datasets", "jax"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not arrays.load("planted", str(root)).train.images.flags.writeable, "the cache is mapped"


def test_changed_source_is_decoded_anew(planted, cache):
    root, held = planted
    arrays.load("planted", str(root))
    shutil.rmtree(root / "planted")
    _, changed = write(root, seed=1)
    assert np.any(changed["train_images"] != held["train_images"])
    assert_holds(arrays.load("planted", str(root)), changed)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_cache_is_decoded_anew(planted, cache, damage):
    root, held = planted
    arrays.load("planted", str(root))
    (file,) = cache.glob("*/train_images.npy")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    assert_holds(arrays.load("planted", str(root)), held)
    assert not arrays.load("planted", str(root)).train.images.flags.writeable, (
        "the cache is written again"
    )


def test_cache_that_cannot_be_written_only_warns(planted, monkeypatch, tmp_path, caplog):
    root, held = planted
    (tmp_path / "file").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_holds(arrays.load("planted", str(root)), held)
    assert "cannot be kept" in caplog.text


def test_two_processes_at_once(planted, cache):
    root, held = planted
    code = f"""if True:
        from rethinking.data import arrays
        print(arrays.load("planted", {str(root)!r}).train.images.sum())
    """
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert {run.communicate()[0].strip() for run in runs} == {str(held["train_images"].sum())}
    assert {run.returncode for run in runs} == {0}
    assert len(list(cache.iterdir())) == 1, "no temporary folder is left"


def test_shard_that_is_damaged_inside(planted, cache):
    root, _ = planted
    file = sorted((root / "planted" / "1.0.0").glob("*train*"))[1]
    content = bytearray(file.read_bytes())
    content[500:700] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file.name} is damaged"):
        arrays.load("planted", str(root))
    assert not cache.exists() or not list(cache.iterdir()), "a damaged set is not cached"


def test_labels_that_are_unknown(planted):
    root, _ = planted
    label = {
        "classLabel": {"numClasses": "2"},
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
    }
    write_features(root / "planted" / "1.0.0", label=label)
    with pytest.raises(InputError, match="labels"):
        arrays.load("planted", str(root))
