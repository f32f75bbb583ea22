"""Records, files and sets that cannot be streamed."""

import dataclasses
import sys

import numpy as np
import pytest

from rethinking.data import decode, stream
from rethinking.data.pipeline import Reading
from rethinking.errors import InputError
from tests.data.pictures import encode, noise
from tests.data.sets import CLASSES, example
from tests.data.streams import NUM, SIZE, evaluate, joined, load, train, write

# The bad records. Record 15 is the third one of the second file.
BAD = (5, 15)


def replace_by(*records):
    new = dict(zip(BAD, records, strict=True))
    return lambda records: [new.get(index, record) for index, record in enumerate(records)]


HALF = example(encode(noise(30, 30), "jpeg")[:400], 0)


DAMAGE = {
    "truncated JPEG": replace_by(HALF, HALF),
    "no image": replace_by(example(b"plain text", 0), example(b"", 0)),
    "no example": replace_by(b"nothing", b""),
    "unknown label": replace_by(
        example(encode(noise(30, 30)), -1), example(encode(noise(30, 30)), CLASSES)
    ),
    "record damaged on disk": None,
}


def write_damaged(root, kind):
    images, _ = write(root, DAMAGE[kind])["train"]
    if DAMAGE[kind] is None:
        for index, file in zip(BAD, sorted(root.glob("pictures/1.0.0/*train*")), strict=True):
            content = bytearray(file.read_bytes())
            at = content.index(encode(images[index])[200:300])
            content[at : at + 100] = bytes(100)
            file.write_bytes(content)
    return images


MESSAGES = [
    rf"pictures-train\.array_record-{file:05d}-of-00002: record {place} cannot be used: .+\. In "
    rf"the split train its index is {index}\. Set config\.data\.skip_bad=True .*prepare"
    for index, file, place in ((5, 0, 5), (15, 1, 2))
]


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_records_are_named(tmp_path, kind):
    write_damaged(tmp_path, kind)
    stream.check("pictures", str(tmp_path))
    split = load(tmp_path).train
    with pytest.raises(InputError, match=MESSAGES[0]):
        evaluate(split)
    with pytest.raises(InputError, match=MESSAGES[1]):
        evaluate(dataclasses.replace(split, indices=split.indices[6:]))
    with pytest.raises(InputError, match="|".join(MESSAGES)):
        train(split, 6)


def test_worker_processes_hand_errors_on(tmp_path):
    write_damaged(tmp_path, "truncated JPEG")
    with pytest.raises(InputError, match="|".join(MESSAGES)):
        train(load(tmp_path).train, 6, num_workers=1)


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_records_are_skipped_and_counted(tmp_path, kind, caplog):
    images = write_damaged(tmp_path, kind)
    split = load(tmp_path).train
    batches = stream.train_batches(
        split, NUM, SIZE, 0, False, Reading(num_threads=2, skip_bad=True)
    )
    for _ in range(2):
        rows = next(batches)
        assert sorted(rows.indices) == list(range(NUM))
        bad = np.isin(rows.indices, BAD)
        np.testing.assert_array_equal(rows.weights, ~bad)
        assert not rows.images[bad].any() and not rows.labels[bad].any()
        for image, index in zip(rows.images[~bad], rows.indices[~bad], strict=True):
            np.testing.assert_array_equal(image, decode.central_view(encode(images[index]), SIZE))
    batches.close()
    assert "Skipped" in caplog.text and "split train its index is 15." in caplog.text
    evaluation = stream.eval_batches(split, 10, SIZE, Reading(num_threads=2, skip_bad=True))
    weights = joined(list(evaluation)).weights
    assert weights.sum() == NUM - 2, "padding has no weight"


def test_errors_of_other_kinds_are_not_taken_for_bad_records(tmp_path, held, monkeypatch):
    def broken(*arguments):
        raise TypeError("a mistake in the program")

    monkeypatch.setattr(decode, "resize", broken)
    with pytest.raises(TypeError, match="a mistake in the program"):
        train(load(tmp_path).train, 1, skip_bad=True)


def test_a_file_that_is_cut_short(tmp_path, held):
    (file,) = tmp_path.glob("pictures/1.0.0/*train*-00001-of-*")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{file.name} is damaged \(0 records where 10 should be"):
        stream.check("pictures", str(tmp_path))
    with pytest.raises(InputError, match=rf"{file.name}: record"):
        train(load(tmp_path).train, 6)


def test_sets_that_cannot_be_streamed(tmp_path):
    write(tmp_path, channels=1)
    for function in (stream.check, stream.load):
        with pytest.raises(
            InputError,
            match=r"pictures cannot be streamed.* 3 channels\. Prepare the set with 3 channels",
        ):
            function("pictures", str(tmp_path))
        with pytest.raises(InputError, match="digits cannot be streamed"):
            function("digits")
        with pytest.raises(InputError, match="Did you mean 'pictures'"):
            function("picture", str(tmp_path))


@pytest.mark.parametrize(
    "module, package", [("cv2", "opencv-python-headless"), ("simplejpeg", "simplejpeg")]
)
def test_a_missing_decoder_is_named_with_its_extra(module, package, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    for function in (stream.check, stream.load):
        with pytest.raises(
            InputError, match=rf'needs {package}\..* pip install -e "\.\[imagenet\]"'
        ):
            function("pictures", str(tmp_path))
