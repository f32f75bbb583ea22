"""Hugging Face sets on disk: saved Arrow files and parquet files, and the choice of columns."""

import sys

import numpy as np
import pytest

from rethinking.data import arrays, stream
from rethinking.data.sources import hugging_face
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError
from tests.data import streams
from tests.data.own_sets import assert_holds, digits, write_parquet, write_saved
from tests.data.pictures import encode
from tests.data.test_image_folder import write_pair

datasets = pytest.importorskip("datasets")
WRITERS = {"saved": write_saved, "parquet": write_parquet}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """A function that writes `own_sets.tables` to a folder, in each of both forms."""
    return lambda **tables: str(WRITERS[request.param](tmp_path / "set", tables))


def pictures(held, key, **columns):
    """A table with an image, its label and further columns."""
    encoded = [{"bytes": encode(image.squeeze()), "path": None} for image in held[f"x_{key}"]]
    label = [int(value) for value in held[f"y_{key}"]]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}
    for name, values in columns.items():
        features[name] = datasets.Value("string" if isinstance(values[0], str) else "int64")
    content = {"image": encoded, "label": label} | columns
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def table(columns, **features):
    found = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        found = found.cast_column(name, feature)
    return found


def test_images_are_those_of_the_set(write, cache):
    held = digits()
    name = write(
        **{
            key: pictures(held, key, more=["x"] * len(held[f"y_{key}"]))
            for key in ("train", "test")
        }
    )
    info = arrays.describe(name)
    assert (info.num_train, info.num_test, info.num_classes) == (40, 20, 10)
    assert (info.example_shape, info.eval_split) == ((8, 8, 3), "test")
    assert_holds(arrays.load(name), held)
    assert [path.name[:4] for path in cache.iterdir() if path.name != "huggingface"] == ["set-"]
    assert not arrays.load(name).train.images.flags.writeable, "the cache is mapped"
    held["x_train"] = held["x_train"] + np.uint8(1)
    write(**{key: pictures(held, key) for key in ("train", "test")})
    assert_holds(arrays.load(name), held)


@pytest.mark.parametrize("folder", ["parquet", "saved[1]", "parquet[1]", "saved::1"])
def test_the_name_of_a_set_is_not_a_pattern_and_not_a_reader(folder, tmp_path, monkeypatch):
    """`datasets` has a reader "parquet", and would look for parquet1 and for saved."""
    held = digits()
    write = WRITERS["saved" if folder.startswith("saved") else "parquet"]
    write(tmp_path / folder, {key: pictures(held, key) for key in ("train", "test")})
    monkeypatch.chdir(tmp_path)
    if folder in ("parquet", "saved[1]"):
        assert_holds(arrays.load(f"./{folder}"), held)
    else:
        with pytest.raises(InputError, match=r"has (\[|::) in its name, .* Rename the set"):
            arrays.load(f"./{folder}")


def test_images_stream_as_those_of_the_tfds_set_do(write, tmp_path):
    folder = write_pair(tmp_path)
    tables = {}
    for split in ("train", "validation"):
        files = sorted((tmp_path / "set" / split).glob("*/*"))
        content = {
            "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "label": [file.parent.name for file in files],
        }
        tables[split] = table(content, image=datasets.Image())
    (tmp_path / "set").rename(tmp_path / "folder")
    name = write(**tables)
    assert name == folder
    stream.check(name)
    ours, theirs = stream.load(name), streams.load(tmp_path)
    streams.assert_same(streams.train(ours.train, 9), streams.train(theirs.train, 9))
    streams.assert_same(streams.evaluate(ours.test), streams.evaluate(theirs.test))


@pytest.mark.parametrize("kind", ["texts", "numbers"])
def test_labels_that_are_no_class_labels(write, kind):
    held = digits()
    tables = {}
    for key in ("train", "test"):
        labels = held[f"y_{key}"].tolist()
        made = pictures(held, key).remove_columns("label")
        values = [f"class {label}" for label in labels] if kind == "texts" else labels
        tables[key] = made.add_column("kind", values)
    assert_holds(arrays.load(write(**tables)), held)


def test_vectors_tokens_and_tables(write):
    x = np.arange(60).reshape(12, 5)
    y = [0, 1, 2] * 4
    floats, whole = x.astype(np.float32), x.astype(np.int32)
    columns = {f"c{number}": floats[:, number].tolist() for number in range(5)}
    for content, features, kind, expected in (
        ({"x": floats.tolist(), "y": y}, {}, "vector", floats),
        ({"x": x.tolist(), "y": y}, {}, "tokens", whole),
        (
            {"x": x.tolist(), "y": y},
            {"x": datasets.List(datasets.Value("uint8"))},
            "vector",
            floats,
        ),
        (columns | {"label": y}, {}, "vector", floats),
    ):
        made = table(content, **features)
        name = write(train=made, test=made.select(range(6)))
        info = arrays.describe(name)
        assert (info.kind, info.example_shape) == (kind, (5,))
        held = {"x_train": expected, "y_train": y, "x_test": expected[:6], "y_test": y[:6]}
        assert_holds(arrays.load(name), held)


def test_a_split_without_labels_is_not_evaluated(write):
    held = digits()
    unlabelled = held | {"y_test": np.full(20, -1)}
    name = write(
        train=pictures(held, "train"),
        test=pictures(unlabelled, "test"),
        validation=pictures(held, "test"),
    )
    assert arrays.describe(name).eval_split == "validation"
    assert_holds(arrays.load(name), held)
    with pytest.raises(InputError, match="eval_split=test: its examples have no labels"):
        arrays.describe(name, evaluation=Evaluation("test"))


def test_a_set_without_splits_is_for_training(tmp_path):
    held = digits()
    made = pictures(held, "train")
    made.shuffle(seed=0).save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "one.parquet")
    for name in (str(tmp_path / "saved"), str(tmp_path / "one.parquet")):
        with pytest.raises(InputError, match=r"has train\. Hold out"):
            arrays.describe(name)
        dataset = arrays.load(name, evaluation=Evaluation(fraction=0.25))
        assert (len(dataset.train.labels), len(dataset.test.labels)) == (30, 10)
    np.testing.assert_array_equal(dataset.train.images, held["x_train"][dataset.train.indices])


X = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"x": X, "y": [0.5, 1.5]}, r"has no column of labels, but x \(List.* y \(Value"),
        ({"x": X, "label": [0.5, 1.5]}, "label holds floats|label .* holds floats"),
        ({"x": X, "a": [0, 1], "b": [0, 1]}, "several columns that could be the labels: a, b"),
        ({"x": X, "z": X, "label": [0, 1]}, "several columns that could be the arrays: x, z"),
        ({"x": ["a", "b"], "label": [0, 1]}, "no column of images or numbers beside the label"),
        ({"x": [[1.0], [2.0, 3.0]], "label": [0, 1]}, "column x differ in shape"),
        ({"x": X, "label": [0, None]}, r"1 labels of train are missing \(column label\)"),
        ({"x": X, "label": [0, 2]}, "train are 0, 2, without 1"),
        ({"x": [[1.0, float("nan")], [2.0, 3.0]], "label": [0, 1]}, "NaN or infinite in 1"),
    ],
)
def test_columns_that_are_no_set(tmp_path, columns, message):
    made = table(columns)
    name = str(write_saved(tmp_path / "set", {"train": made, "test": made}))
    with pytest.raises(InputError, match=message) as caught:
        arrays.describe(name)
    assert name in str(caught.value)


def test_a_bad_image_is_named(write):
    held = digits()
    made = pictures(held, "train").to_dict()
    made["image"] = [{"bytes": encode(image), "path": None} for image in held["x_train"]]
    made["image"][17]["bytes"] = b"plain text"
    train = table(made, image=datasets.Image())
    name = write(train=train, test=train)
    with pytest.raises(
        InputError, match=rf"{name}: row 17 of train cannot be used: .*not an image"
    ):
        arrays.load(name)


def test_files_that_are_cut_short_are_named(write, tmp_path):
    held = digits()
    name = write(train=pictures(held, "train"), test=pictures(held, "test"))
    files = [*tmp_path.glob("set/**/train*.parquet"), *tmp_path.glob("set/train/*.arrow")]
    (file,) = files
    content = file.read_bytes()
    for kept in (0, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"damaged|cannot be opened as a Hugging Face set"):
            arrays.load(name)


def test_without_datasets_the_extra_is_named(tmp_path, monkeypatch):
    held = digits()
    name = str(write_saved(tmp_path / "set", {"train": pictures(held, "train")}))
    monkeypatch.setitem(sys.modules, "datasets", None)
    for function in (arrays.describe, stream.check):
        with pytest.raises(InputError, match=r'needs datasets\..* "\.\[huggingface\]"'):
            function(name)


def test_splits_that_number_their_classes_otherwise_are_refused(write):
    """As `class_encode_column` makes them where a split lacks a class."""
    x = [[0.0, 1.0]] * 3
    numbered = datasets.ClassLabel(names=["ant", "bee", "cat"])
    train = table({"x": x, "y": [0, 1, 2]}, y=numbered)
    other = table({"x": x, "y": [0, 1, 1]}, y=datasets.ClassLabel(names=["ant", "cat"]))
    same = table({"x": x, "y": [0, 2, 2]}, y=numbered)
    assert arrays.load(write(train=train, test=same)).test.labels.tolist() == [0, 2, 2]
    with pytest.raises(InputError, match=r"the classes ant, (bee, )?cat, but those of "):
        arrays.describe(write(train=train, test=other))


def test_a_saved_set_is_read_where_it_is_and_selected_rows_are_those(tmp_path, monkeypatch):
    def load(name):
        return arrays.load(name, train=False).test.images[:, 0].tolist()

    rows = table({"x": [[float(i), 0.0] for i in range(6)], "y": [0, 1] * 3})
    folder = write_saved(tmp_path / "set", {"test": rows})
    before = sorted(folder.rglob("*"))
    assert load(str(folder)) == [0, 1, 2, 3, 4, 5]
    assert sorted(folder.rglob("*")) == before
    whole = datasets.load_from_disk(str(folder))["test"]
    monkeypatch.setattr(hugging_face, "_open", lambda path: {"test": whole.select([5, 2, 3])})
    assert load(str(folder)) == [5, 2, 3]
