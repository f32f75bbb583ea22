"""Damaged descriptions of TFDS sets, and files that the system cannot read."""

import errno
import json
import os
import pathlib
import resource

import numpy as np
import pytest

from rethinking.data import arrays, faults, source, stream
from rethinking.data.sources import digits, tfds_description
from rethinking.errors import InputError
from tests.data import streams
from tests.data.sets import write, write_features

IMAGE = ("featuresDict", "features", "image")
SPLIT = ("splits", 0)  # train


def change(file, path, value):
    """Replaces what is at `path` in a JSON file; None removes it."""
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name, path, value, reason",
    [
        ("dataset_info.json", ("name",), 5, "name is not a text"),
        ("dataset_info.json", ("splits",), None, "splits is not a list"),
        ("dataset_info.json", ("splits",), {"train": 1}, "splits is not a list"),
        ("dataset_info.json", SPLIT, "train", "a split has no name"),
        ("dataset_info.json", (*SPLIT, "name"), None, "a split has no name"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), None, "split train: .* shardLengths"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), "50", "split train: .* shardLengths"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), ["30", "-20"], "shardLengths is '-20'"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), ["30", True], "shardLengths is True"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), ["30", 1e999], "shardLengths is inf"),
        ("dataset_info.json", (*SPLIT, "shardLengths"), ["30", "9" * 5000], "shardLengths is '99"),
        ("dataset_info.json", (*SPLIT, "filepathTemplate"), "{NOTHING}", "filepathTemplate"),
        ("dataset_info.json", (*SPLIT, "filepathTemplate"), "{", "filepathTemplate"),
        ("dataset_info.json", (*SPLIT, "filepathTemplate"), "same", "two files one name"),
        ("features.json", ("featuresDict",), [1], "featuresDict is not a dictionary"),
        ("features.json", IMAGE, "Image", "the feature image is not a dictionary"),
        ("features.json", (*IMAGE, "image", "shape"), 7, "shape is not a dictionary"),
        ("features.json", (*IMAGE, "image", "shape", "dimensions"), ["5", "6"], "three numbers"),
        ("features.json", (*IMAGE, "image", "shape", "dimensions", 0), "0", "a side .* is 0"),
        ("features.json", (*IMAGE, "image", "shape", "dimensions", 0), "-2", "at least -1"),
        ("features.json", (*IMAGE[:2], "label", "classLabel", "numClasses"), "0", "numClasses"),
        ("features.json", (*IMAGE[:2], "label", "classLabel", "numClasses"), None, "numClasses"),
        ("features.json", (*IMAGE[:2], "label", "classLabel", "numClasses"), [4], "numClasses"),
    ],
)
def test_wrong_values_are_named_with_their_file(planted, name, path, value, reason):
    root, _ = planted
    file = root / "planted" / "1.0.0" / name
    change(file, path, value)
    with pytest.raises(InputError, match=rf"planted/1\.0\.0 is damaged \({file}: .*{reason}"):
        arrays.describe("planted", str(root))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"splits": NaN', b"null"])
def test_what_is_not_json_is_named(planted, content):
    root, _ = planted
    for name in ("features.json", "dataset_info.json"):
        file = root / "planted" / "1.0.0" / name
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"is damaged \({file}: "):
            arrays.describe("planted", str(root))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_flipped_bit_is_refused_or_does_no_harm(planted, name):
    """A flip may also give another valid description, of which the records then are a part."""
    root, _ = planted
    file = root / "planted" / "1.0.0" / name
    whole = file.read_bytes()
    for at in range(0, len(whole), 2):
        content = bytearray(whole)
        content[at] ^= 1 << (at // 2 % 8)
        file.write_bytes(content)
        try:
            info = arrays.describe("planted", str(root))
        except InputError:
            continue
        assert (info.num_train, info.num_test) == (50, 15)


def test_another_shape_than_that_of_the_images_is_refused(planted):
    root, _ = planted
    file = root / "planted" / "1.0.0" / "features.json"
    change(file, (*IMAGE, "image", "shape", "dimensions", 1), "7")
    with pytest.raises(InputError, match=r"record 0 .* its image is 5 x 6 x 3, but .* 5 x 7 x 3"):
        arrays.load("planted", str(root))


def test_a_set_that_tfds_cannot_open_is_named(planted):
    root, _ = planted
    file = root / "planted" / "1.0.0" / "features.json"
    change(file, (*IMAGE, "pythonClassName"), "tensorflow_datasets.core.features.imago.Image")
    for function in (arrays.describe, arrays.load):
        with pytest.raises(InputError, match=rf"{file} is damaged \(TFDS cannot open"):
            function("planted", str(root))


@pytest.mark.parametrize(
    "feature, reason",
    [
        ({"label": {"pythonClassName": "a.b.text_feature.Text", "text": {}}}, "label is a Text,"),
        ({"label": {"pythonClassName": "a.b.Scalar", "tensor": {}}}, "label is a Scalar,"),
        ({"label": None}, "it has no feature label, but image"),
        ({"image": {"pythonClassName": "a.b.Video", "video": {}}}, "image is a Video,"),
        ({"image": {"image": {"dtype": "uint16"}}}, "images is uint16, but must be uint8"),
    ],
)
def test_the_feature_that_is_wrong_is_named(planted, feature, reason):
    root, _ = planted
    write_features(root / "planted" / "1.0.0", **feature)
    with pytest.raises(InputError, match=f"not an image-classification set: .*{reason}"):
        arrays.describe("planted", str(root))


@pytest.fixture
def no_more_files():
    """A function after which this process can open no more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_many_open_files_are_no_damage(tmp_path, no_more_files):
    write(tmp_path)
    streams.write(tmp_path)
    (tmp_path / "planted").rename(tmp_path / "set")
    planted = source.find("set", str(tmp_path))
    split = streams.load(tmp_path).train
    file = next(iter(planted.shards["train"]))
    no_more_files()
    failures = []
    for function in (
        lambda: planted.check(),
        lambda: split.records.read(0),
        lambda: split.records.read_many([0, 1]),
        lambda: planted.records("train"),
        lambda: tfds_description.read("set", file.parent),
    ):
        try:
            function()
        except InputError as error:
            failures.append(error)
    assert len(failures) == 5
    for error in failures:
        assert "cannot be read: Too many open files" in str(error)
        assert "damaged" not in str(error) and not isinstance(error, faults.BadRecord)


@pytest.mark.parametrize(
    "code, cause", [(errno.EIO, "Input/output error"), (errno.EACCES, "Permission denied")]
)
def test_errors_of_the_system_are_no_damage_and_never_skipped(tmp_path, monkeypatch, code, cause):
    streams.write(tmp_path)
    split = streams.load(tmp_path).train

    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(type(split.records.data), "__getitem__", fail)
    with pytest.raises(InputError, match=rf"train\S+ cannot be read: {cause}\. .* intact"):
        streams.train(split, 1, skip_bad=True)
    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    for function in (arrays.describe, stream.check):
        with pytest.raises(InputError, match=rf"dataset_info\.json cannot be read: {cause}"):
            function("pictures", str(tmp_path))


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(planted, monkeypatch):
    root, _ = planted

    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(InputError, match=rf"{root} cannot be read: Permission denied"):
        arrays.describe("planted", str(root))


@pytest.mark.parametrize("method", ["is_file", "stat"])
def test_a_file_that_cannot_be_looked_at_is_named(planted, monkeypatch, method):
    root, _ = planted
    function = getattr(pathlib.Path, method)

    def fail(path, **options):
        if "00001-of" in path.name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return function(path, **options)

    monkeypatch.setattr(pathlib.Path, method, fail)
    with pytest.raises(InputError, match="00001-of-00002 cannot be read: Input/output error"):
        arrays.load("planted", str(root))


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    streams.write(tmp_path)
    split = streams.load(tmp_path).train

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(type(split.records.data), "__getitem__", fail)
    with pytest.raises(MemoryError):
        streams.train(split, 1, skip_bad=True)


def test_a_flipped_bit_in_the_digits_is_refused(tmp_path, monkeypatch):
    whole = digits.FILE.read_bytes()
    copy = tmp_path / "digits.npz"
    monkeypatch.setattr(digits, "FILE", copy)
    for at in np.linspace(0, len(whole) - 1, 20, dtype=int):
        content = bytearray(whole)
        content[at] ^= 4
        copy.write_bytes(content)
        with pytest.raises(InputError, match=rf"{copy} is damaged\. Install"):
            arrays.load("digits")
    copy.write_bytes(whole)
    assert len(arrays.load("digits").train.labels) == 1437
