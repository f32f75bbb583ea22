"""Folders of images: their order, against TFDS sets of the same images, and what is refused."""

import os
import pickle
import shutil

import numpy as np
import pytest

from rethinking.data import arrays, source, stream
from rethinking.data.faults import BadRecord
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError
from tests.data import streams
from tests.data.own_sets import assert_holds, digits, write_folder
from tests.data.pictures import encode, noise
from tests.data.sets import CLASSES, example, write_features, write_info, write_shards
from tests.data.streams import assert_same, evaluate, joined, train


@pytest.fixture
def folder(tmp_path):
    """A folder of digits in colour."""
    return write_folder(tmp_path / "set", digits())


def test_a_folder_holds_its_images_by_class_and_name(folder, cache):
    held = digits()
    info = arrays.describe(str(folder))
    assert (info.num_train, info.num_test, info.num_classes) == (40, 20, 10)
    assert (info.example_shape, info.eval_split) == ((8, 8, 3), "test")
    assert_holds(arrays.load(str(folder)), held)
    (cached,) = cache.iterdir()
    assert cached.name.startswith("set-")
    assert_holds(arrays.load(str(folder)), held)
    assert not arrays.load(str(folder)).train.images.flags.writeable, "the cache is mapped"


def test_the_cache_follows_the_files(folder, cache):
    held = digits()
    arrays.load(str(folder))
    changed = folder / "train" / "class_0" / "00000.png"
    os.utime(changed, ns=(1, 1))
    held["x_train"][0] += 1
    changed.write_bytes(encode(held["x_train"][0]))
    assert_holds(arrays.load(str(folder)), held)
    (folder / "train" / "class_9").rename(folder / "train" / "class_a")
    (folder / "test" / "class_9").rename(folder / "test" / "class_a")
    assert_holds(arrays.load(str(folder)), held)
    last = sorted((folder / "train" / "class_a").iterdir())[-1]
    last.unlink()
    shorter = held | {key: held[key][:-1] for key in ("x_train", "y_train")}
    assert_holds(arrays.load(str(folder)), shorter)


def test_names_are_ordered_as_those_of_torchvision(tmp_path):
    """Sorted by class, then by folder, then by name: capitals first, and links are followed."""
    for number, name in enumerate(["a.png", "Z.JPG", "deep/0.png", "b.jpeg", "Thumbs.db"]):
        for label in ("b", "A", "c"):
            file = tmp_path / "set" / "train" / label / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(np.full((2, 2, 3), number, np.uint8)))
    (tmp_path / "set" / ".cache").mkdir()
    (tmp_path / "set" / "train" / ".hidden").mkdir()
    (tmp_path / "set" / "train" / "b" / ".c.png").write_bytes(b"")
    (tmp_path / "set" / "train" / "d").symlink_to(tmp_path / "set" / "train" / "c")
    shutil.copytree(tmp_path / "set" / "train" / "A", tmp_path / "set" / "val" / "A")
    found = arrays.load(str(tmp_path / "set"))
    assert found.num_classes == 4 and found.eval_split == "val"
    np.testing.assert_array_equal(found.train.labels, np.repeat([0, 1, 2, 3], 4))
    np.testing.assert_array_equal(found.train.images[:, 0, 0, 0], [1, 0, 3, 2] * 4)
    np.testing.assert_array_equal(found.test.labels, np.zeros(4))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, bool])
def test_grey_images_have_one_channel(tmp_path, kind):
    held = digits()
    for key in ("x_train", "x_test"):
        held[key] = held[key][..., :1]
    content = dict(held)
    if kind is bool:
        held = {
            key: held[key] // 128 * np.uint8(255) if key[0] == "x" else held[key] for key in held
        }
        content = {key: held[key] > 0 if key[0] == "x" else held[key] for key in held}
    if kind is np.uint16:
        for key in ("x_train", "x_test"):
            content[key] = held[key].astype(np.uint16) * np.uint16(257)
    folder = write_folder(tmp_path / "set", content)
    assert_holds(arrays.load(str(folder)), held)


def test_splits(folder):
    """Images of test that are in no folders of classes have no labels, as those of ImageNet."""
    name = str(folder)
    (folder / "test").rename(folder / "validation")
    assert arrays.load(name).eval_split == "validation"
    (folder / "test").mkdir()
    (folder / "test" / "1.png").write_bytes(encode(noise(8, 8)))
    assert arrays.describe(name).eval_split == "validation"
    with pytest.raises(InputError, match="eval_split=test: its examples have no labels"):
        arrays.describe(name, evaluation=Evaluation("test"))
    shutil.rmtree(folder / "validation")
    with pytest.raises(InputError, match=r"test has no labels\. Hold out"):
        arrays.describe(name)
    shutil.rmtree(folder / "test")
    for function in (arrays.describe, stream.check):
        with pytest.raises(InputError, match=r"and has train\. Hold out .*test_fraction=0\.1"):
            function(name)
    held_out = arrays.load(name, evaluation=Evaluation(fraction=0.2))
    assert (len(held_out.train.labels), len(held_out.test.labels)) == (32, 8)
    (folder / "train").rename(folder / "Training")
    with pytest.raises(InputError, match=r"has no folder train, but Training\. Put the images"):
        arrays.describe(name)


def empty_class(folder):
    shutil.rmtree(folder / "train" / "class_3")
    (folder / "train" / "class_3").mkdir()
    (folder / "train" / "class_3" / "readme.txt").write_text("")


def new_class(folder):
    (folder / "test" / "class_0").rename(folder / "test" / "class_x")


@pytest.mark.parametrize(
    "change, message",
    [
        (empty_class, r"train/class_3 has no images, which are files that end in \.jpg"),
        (new_class, "test has the class class_x, which .*train does not have"),
    ],
)
def test_classes_that_are_refused(folder, change, message):
    change(folder)
    for function in (arrays.describe, arrays.load, stream.check):
        with pytest.raises(InputError, match=message):
            function(str(folder))


def replace_by(content):
    def change(file):
        file.unlink()
        file.write_bytes(content)

    return change


def broken_link(file):
    file.unlink()
    file.symlink_to("nowhere.png")


@pytest.mark.parametrize(
    "change, message",
    [
        (replace_by(b"plain text"), "it is not an image"),
        (replace_by(b""), "it is empty"),
        (replace_by(encode(noise(8, 8))[:100]), "image is damaged"),
        (replace_by(encode(noise(8, 9))), r"8 x 9 x 3, but the first .* 8 x 8 x 3 .*stream=True"),
        (broken_link, "a link that leads nowhere"),
    ],
)
def test_a_bad_image_is_named(folder, cache, change, message):
    file = sorted((folder / "train").glob("*/*"))[17]
    change(file)
    with pytest.raises(BadRecord, match=rf"{file} cannot be used: .*{message}.* index is 17\. Rep"):
        arrays.load(str(folder))
    assert not cache.exists() or not list(cache.iterdir()), "a damaged set is not cached"


def test_a_coloured_image_among_grey_ones_is_named(tmp_path):
    held = digits()
    held["x_train"] = held["x_train"][..., :1]
    folder = write_folder(tmp_path / "set", held)
    with pytest.raises(
        InputError, match=r"class_\d/00000.png cannot be used: it is in colour, but"
    ):
        arrays.load(str(folder))


def write_pair(root, channels=3):
    """The same pictures of differing sizes as the TFDS set "pictures" and as a folder."""
    rng, splits = np.random.default_rng(0), []
    for name, lengths in streams.SHARDS.items():
        labels = np.sort(np.arange(sum(lengths)) % CLASSES)
        records = []
        for number, label in enumerate(labels):
            encoded = encode(noise(rng.integers(20, 40), rng.integers(20, 40), number), "jpeg")
            records.append(example(encoded, label))
            place = root / "set" / name / f"{label}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:03d}.JPEG").write_bytes(encoded)
        (root / "pictures" / "1.0.0").mkdir(parents=True, exist_ok=True)
        splits.append(write_shards(root / "pictures" / "1.0.0", name, records, lengths))
    write_info(root / "pictures" / "1.0.0", splits)
    write_features(root / "pictures" / "1.0.0", shape=(-1, -1, 3))
    return str(root / "set")


def test_a_folder_streams_as_the_tfds_set_does(tmp_path):
    """Exact epochs, continued from any step, on two processes, and read by workers."""
    name = write_pair(tmp_path)
    stream.check(name)
    ours, theirs = stream.load(name), streams.load(tmp_path)
    whole = train(theirs.train, 14)
    assert_same(train(ours.train, 14), whole)
    assert_same(train(ours.train, 3, first_step=9), whole[9:12])
    assert_same(train(pickle.loads(pickle.dumps(ours.train)), 2), whole[:2])
    halves = [train(ours.train, 8, rows=slice(2 * part, 2 * part + 2)) for part in (0, 1)]
    assert_same([joined(parts) for parts in zip(*halves, strict=True)], whole[:8])
    assert_same(evaluate(ours.test), evaluate(theirs.test))
    for settings in ({"num_train": 9, "seed": 3}, {"evaluation": Evaluation(fraction=0.3)}):
        ours, theirs = stream.load(name, **settings), streams.load(tmp_path, **settings)
        assert_same(train(ours.train, 7), train(theirs.train, 7))
        assert_same(evaluate(ours.test), evaluate(theirs.test))


def test_streamed_images_that_are_bad_are_named_or_skipped(tmp_path, caplog):
    """Also the first one, of which a set in memory has its shape."""
    name = write_pair(tmp_path)
    files = sorted((tmp_path / "set" / "train").glob("*/*"))
    for bad in (0, 15):
        files[bad].write_bytes(b"plain text")
    stream.check(name)
    split = stream.load(name).train
    with pytest.raises(
        BadRecord, match=rf"{files[0]} cannot .* index is 0\. Set config.data.skip_bad=True"
    ):
        evaluate(split)
    rows = joined(evaluate(split, skip_bad=True))
    np.testing.assert_array_equal(np.flatnonzero(rows.weights[:23] == 0), [0, 15])
    assert str(files[15]) in caplog.text


def test_grey_images_stream_in_colour(tmp_path):
    grey = digits()
    folder = write_folder(tmp_path / "set", grey | {"x_train": grey["x_train"][..., 0]})
    (batch, *_) = evaluate(stream.load(str(folder)).train, 40)
    assert batch.images.shape == (40, streams.SIZE, streams.SIZE, 3)
    np.testing.assert_array_equal(batch.images[..., 0], batch.images[..., 2])


def test_imagenette_as_a_folder_of_its_jpegs_streams_as_the_tfds_set_does(tmp_path, tfds_dir):
    """A part of it, whose records are sorted by class, because a folder's images are."""
    records = source.find("imagenette_subset", tfds_dir("imagenette_subset")).records("train")
    pairs = sorted((records.read(index) for index in range(48)), key=lambda pair: pair[1])
    names = {label: f"class_{number}" for number, label in enumerate(sorted({y for _, y in pairs}))}
    classes = sorted(names)
    written = []
    for number, (encoded, label) in enumerate(pairs):
        place = tmp_path / "set" / "train" / names[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.JPEG").write_bytes(encoded)
        written.append(example(encoded, classes.index(label)))
    place = tmp_path / "pictures" / "1.0.0"
    place.mkdir(parents=True)
    write_info(place, [write_shards(place, "train", written, [30, 18])])
    label = {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}
    label |= {"classLabel": {"numClasses": str(len(classes))}}
    write_features(place, shape=(-1, -1, 3), label=label)
    evaluation = Evaluation(fraction=0.25)
    ours = stream.load(str(tmp_path / "set"), evaluation=evaluation)
    theirs = streams.load(tmp_path, evaluation=evaluation)
    assert_same(train(ours.train, 5, 16), train(theirs.train, 5, 16))
    assert_same(evaluate(ours.test), evaluate(theirs.test))
