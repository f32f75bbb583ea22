"""Loading against TFDS itself and scikit-learn, and what a user is told about a set that cannot be used."""

import hashlib
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rethinking.data import arrays, source
from rethinking.errors import InputError

CLASSES, SHAPE, SHARDS = 4, (5, 6, 3), {"train": [30, 20], "test": [15]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rethinking" / "data"


@pytest.fixture
def planted(tmp_path):
    """A TFDS set written by hand, "planted", in the folder that is returned, and the arrays that it holds."""
    return write(tmp_path / "tfds")


def write(root, version="1.0.0", test="test", seed=0, **metadata):
    folder = root / "planted" / version
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    held, splits = {}, []
    for key, lengths in SHARDS.items():
        name = test if key == "test" else key
        images = rng.integers(0, 256, (sum(lengths), *SHAPE), dtype=np.uint8)
        labels = rng.integers(0, CLASSES, sum(lengths)).astype(np.int32)
        examples = iter(zip(images, labels, strict=True))
        for shard, length in enumerate(lengths):
            file = folder / f"planted-{name}.array_record-{shard:05d}-of-{len(lengths):05d}"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for _ in range(length):
                writer.write(example(*next(examples)))
            writer.close()
        splits.append(
            {"name": name, "shardLengths": [str(length) for length in lengths], "numBytes": "1"}
        )
        held |= {f"{key}_images": images, f"{key}_labels": labels}
    info = {
        "name": "planted",
        "version": version,
        "fileFormat": "array_record",
        "splits": splits,
    } | metadata
    (folder / "dataset_info.json").write_text(json.dumps(info))
    write_features(folder)
    return root, held


def example(image, label):
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(image).save(png, "png")
    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(png.getvalue())
    record.features.feature["label"].int64_list.value.append(int(label))
    return record.SerializeToString()


def write_features(folder, shape=SHAPE, **changes):
    package = "tensorflow_datasets.core.features"
    image = {
        "dtype": "uint8",
        "encodingFormat": "png",
        "shape": {"dimensions": [str(side) for side in shape]},
    }
    features = {
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "label": {
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(CLASSES)},
        },
    } | changes
    features = {name: feature for name, feature in features.items() if feature}
    content = {
        "pythonClassName": f"{package}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(content))


def without_train(root, version="1.0.0"):
    """Makes the planted set one that is for testing alone, as CIFAR10.1 is."""
    description = root / "planted" / version / "dataset_info.json"
    info = json.loads(description.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "train"]
    description.write_text(json.dumps(info))


def assert_holds(dataset, held):
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, held[f"{key}_images"])
        np.testing.assert_array_equal(split.labels, held[f"{key}_labels"])
        np.testing.assert_array_equal(split.indices, np.arange(len(held[f"{key}_labels"])))


def test_digits_are_the_same_bytes_as_ever():
    """Committed records and the quickstart rest on these values and their order."""
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
def test_num_train_that_is_not_there(num_train):
    with pytest.raises(InputError, match="1,437"):
        arrays.load("digits", num_train=num_train)


def test_planted_set(planted):
    root, held = planted
    info = arrays.describe("planted", str(root))
    assert info == source.Info(num_train=50, num_test=15, image_shape=SHAPE, num_classes=CLASSES)
    dataset = arrays.load("planted", str(root))
    assert dataset.num_classes == CLASSES and dataset.train.labels.dtype == np.int32
    assert_holds(dataset, held)
    assert_holds(arrays.load("planted", str(root)), held)


def test_validation_serves_where_there_is_no_test(tmp_path):
    root, held = write(tmp_path, test="validation")
    assert_holds(arrays.load("planted", str(root)), held)


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
    assert_holds(arrays.load("planted", str(root)), other)  # of before there were configurations
    shutil.rmtree(root / "planted" / "0.9.0")
    shutil.copytree(root / "planted" / "blue", root / "planted" / "red")
    assert_holds(arrays.load("planted/red", str(root)), held)
    with pytest.raises(
        InputError, match=r"several configurations. Name one: planted/blue, planted/red"
    ):
        arrays.load("planted", str(root))


SETS = {"mnist": ((28, 28, 1), 60_000, 10_000), "cifar10": ((32, 32, 3), 50_000, 10_000)}


@pytest.mark.parametrize("name", SETS)
def test_check_of_prepared_sets(name, tfds_dir):
    shape, num_train, num_test = SETS[name]
    assert arrays.describe(name, tfds_dir(name)) == source.Info(num_train, num_test, shape, 10)


@pytest.mark.parametrize("name", SETS)
def test_prepared_sets_are_bit_identical_to_tfds(name, tfds_dir):
    import tensorflow_datasets as tfds

    root = tfds_dir(name)
    dataset = arrays.load(name, root)
    chosen = np.random.default_rng(0).integers(0, 10_000, 300).tolist()
    for split in ("train", "test"):
        ours = getattr(dataset, split)
        assert ours.images.shape == (SETS[name][1 if split == "train" else 2], *SETS[name][0])
        theirs = tfds.data_source(name, split=split, data_dir=root).__getitems__(chosen)
        np.testing.assert_array_equal(ours.images[chosen], [example["image"] for example in theirs])
        np.testing.assert_array_equal(ours.labels[chosen], [example["label"] for example in theirs])
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
    assert not arrays.load("planted", str(root)).train.images.flags.writeable, "mapped, not read"


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
    assert not arrays.load("planted", str(root)).train.images.flags.writeable, "and kept once more"


def test_cache_that_cannot_be_written_only_warns(planted, monkeypatch, tmp_path, caplog):
    root, held = planted
    (tmp_path / "file").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_holds(arrays.load("planted", str(root)), held)
    assert "cannot be kept" in caplog.text


def test_two_processes_at_once(planted, cache):
    root, held = planted
    code = f"from rethinking.data import arrays; print(arrays.load('planted', {str(root)!r}).train.images.sum())"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert {run.communicate()[0].strip() for run in runs} == {str(held["train_images"].sum())}
    assert {run.returncode for run in runs} == {0}
    assert len(list(cache.iterdir())) == 1, "nothing temporary is left"


@pytest.mark.parametrize(
    "name, message",
    [
        ("cifar11", r"Unknown data set 'cifar11'.*'cifar10'"),
        ("plantd", r"Did you mean 'planted'"),
        ("digit", r"Did you mean 'digits'"),
        ("", r"Unknown data set ''\. Known are: digits, planted"),
        ("../planted", r"Unknown data set"),
        (
            "mnist",
            r"mnist is not prepared in .*: python -m rethinking\.data\.prepare mnist --data_dir=",
        ),
    ],
)
def test_names_that_are_not_there(planted, name, message):
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
def test_no_image_classification(planted, features):
    root, _ = planted
    write_features(root / "planted" / "1.0.0", **features)
    with pytest.raises(InputError, match="no image-classification set"):
        arrays.describe("planted", str(root))


def test_images_of_differing_sizes(planted):
    root, _ = planted
    for channels, remedy in ((1, "prepare them at one size"), (3, "such sets are streamed")):
        write_features(root / "planted" / "1.0.0", shape=(-1, -1, channels))
        with pytest.raises(InputError, match=f"differ in size: {remedy}"):
            arrays.describe("planted", str(root))
    assert source.find("planted", str(root)).info.image_shape == (-1, -1, 3), (
        "which serves sets that are streamed"
    )


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


def test_shard_that_is_damaged_inside(planted, cache):
    root, _ = planted
    file = sorted((root / "planted" / "1.0.0").glob("*train*"))[1]
    content = bytearray(file.read_bytes())
    content[500:700] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file.name} is damaged"):
        arrays.load("planted", str(root))
    assert not cache.exists() or not list(cache.iterdir()), "nothing half decoded is kept"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": "planted", "splits": 3}'])
def test_damaged_description(planted, name, content):
    root, _ = planted
    (root / "planted" / "1.0.0" / name).write_text(content)
    with pytest.raises(InputError, match=r"planted/1\.0\.0 is damaged"):
        arrays.describe("planted", str(root))


def test_labels_that_are_unknown(planted):
    root, _ = planted
    label = {
        "classLabel": {"numClasses": "2"},
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
    }
    write_features(root / "planted" / "1.0.0", label=label)
    with pytest.raises(InputError, match="labels"):
        arrays.load("planted", str(root))
