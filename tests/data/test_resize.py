"""Copies of a set with smaller images: their pixels, their order, and what is said beforehand."""

import collections
import re

import numpy as np
import pytest

from rethinking.data import decode, faults, prepare, resize, stream
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError
from tests.data import streams
from tests.data.own_sets import digits, write_folder
from tests.data.pictures import encode, noise

SIDE = 24


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(resize, "SHARD_BYTES", 8000)


def records(root, name, key):
    found = stream.find_coloured(name, str(root), Evaluation(needed=False))
    return found.records(key)


def test_a_copy_has_the_same_records_in_the_same_order_with_a_name_of_its_own(
    tmp_path, held, capsys
):
    said = prepare.prepare_smaller("pictures", SIDE, str(tmp_path))
    copy = "pictures_short_side_24"
    assert f"{copy} is prepared: 23 training and 7 test images" in said
    assert said.endswith(f"Use it by --config.data.name={copy}")
    stream.check(copy, str(tmp_path))
    num_bytes = 0
    for key, split in (("train", "train"), ("test", "validation")):
        images, labels = held[split]
        small = records(tmp_path, copy, key)
        assert len(small.files) > 1 or key == "test"
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            encoded, copied = small.read(index)
            num_bytes += len(encoded)
            assert copied == label
            height, width = image.shape[:2]
            if min(height, width) <= SIDE:
                assert encoded == encode(image), "a small image stays as it is"
                continue
            scale = SIDE / min(height, width)
            assert decode.shape(encoded) == (round(height * scale), round(width * scale))
    estimate = float(re.search(r"30 images and about ([\d.]+) MB", capsys.readouterr().out)[1])
    assert estimate == pytest.approx(num_bytes / 1e6, abs=0.02)
    assert [path.name for path in (tmp_path / copy).iterdir()] == ["1.0.0"]


def test_an_image_is_averaged_over_areas():
    """A picture that is smooth enough for JPEG, at half its size."""
    down, right = np.mgrid[0:64, 0:80]
    image = np.stack([3 * down, 2 * right, down + right], 2).astype(np.uint8)
    small = decode.decode(resize.shrink(encode(image), 32))
    expected = image.reshape(32, 2, 40, 2, 3).mean((1, 3))
    assert np.abs(small - expected).mean() < 1.5


def test_the_estimate_is_that_of_the_sample(tmp_path, held):
    original = records(tmp_path, "pictures", "train")
    sizes = [len(resize.shrink(original.read(index)[0], SIDE)) for index in range(streams.NUM)]
    estimate = resize.estimate_copy(original, 1000, SIDE)
    assert estimate.bytes == pytest.approx(1000 * np.mean(sizes))
    assert estimate.core_seconds > 0


def test_random_labels_are_those_of_the_original(tmp_path, held):
    resize.write_copy("pictures", SIDE, str(tmp_path), lambda text: None)
    evaluated = []
    for name in ("pictures", "pictures_short_side_24"):
        split = stream.load(name, str(tmp_path), num_train=9, seed=3).train
        evaluated.append(streams.joined(streams.evaluate(split)))
    for field in ("indices", "labels", "weights"):
        first, second = (getattr(rows, field) for rows in evaluated)
        np.testing.assert_array_equal(first, second)
    assert (evaluated[0].images != evaluated[1].images).any()


def test_a_folder_has_a_copy_with_its_classes(tmp_path):
    held = digits()
    folder = write_folder(tmp_path / "my.set", held, names=[f"digit {i}" for i in range(10)])
    copy = resize.write_copy(str(folder), 4, str(tmp_path), lambda text: None)
    assert copy == "my_short_side_4" == resize.copy_name("./my", 4)
    written = tmp_path / copy / "1.0.0" / "label.labels.txt"
    assert written.read_text().split("\n")[:2] == ["digit 0", "digit 1"]
    small = stream.load(copy, str(tmp_path))
    assert [len(small.train), len(small.test)] == [40, 20]
    assert "already prepared" in prepare.prepare_smaller(str(folder), 4, str(tmp_path))
    other = write_folder(tmp_path / "elsewhere" / "my", held)
    with pytest.raises(InputError, match=f"is a copy of {folder}, not of {other}. Move it"):
        prepare.prepare_smaller(str(other), 4, str(tmp_path))
    assert decode.shape(small.train.records.read(0)[0]) == (4, 4)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("imagenet2012", "imagenet2012_short_side_320"),
        ("imagenet2012:5.1.0", "imagenet2012_short_side_320"),
        ("imagenette/full-size-v2", "imagenette_full_size_v2_short_side_320"),
        ("/data/imagenet", "imagenet_short_side_320"),
    ],
)
def test_the_name_says_what_the_copy_is(name, expected):
    assert resize.copy_name(name, 320) == expected


def test_too_full_a_disk_is_refused_and_nothing_is_written(tmp_path, held, monkeypatch):
    usage = collections.namedtuple("Usage", "total used free")
    monkeypatch.setattr(faults.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 9, 9))
    with pytest.raises(InputError, match=r"Writing pictures_short_side_24 takes 0\.0 GB"):
        resize.write_copy("pictures", SIDE, str(tmp_path), lambda text: None)
    assert not list(tmp_path.glob("*_short_side_*"))


def test_a_damaged_image_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    streams.write(tmp_path, lambda each: [*each[:20], each[20][: len(each[20]) // 2], *each[21:]])
    monkeypatch.setattr(resize, "SAMPLE", 3)
    with pytest.raises(InputError, match=r"train.*record 7 cannot be used"):
        resize.write_copy("pictures", SIDE, str(tmp_path), lambda text: None)
    assert not list(tmp_path.glob("*_short_side_*/*"))


def test_sides_and_sets_that_make_no_sense_are_refused(tmp_path, held):
    with pytest.raises(InputError, match=r"--short_side=0: must be at least 1"):
        resize.write_copy("pictures", 0, str(tmp_path))
    with pytest.raises(InputError, match="digits cannot be streamed"):
        resize.write_copy("digits", SIDE, str(tmp_path))


def test_an_image_of_another_format_becomes_a_jpeg():
    small = resize.shrink(encode(noise(30, 60)), 15)
    assert small[:2] == b"\xff\xd8" and decode.shape(small) == (15, 30)
