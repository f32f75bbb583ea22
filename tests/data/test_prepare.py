"""The answers of `python -m rethinking.data.prepare` when it downloads nothing."""

import importlib.util
import subprocess
import sys

import pytest

from rethinking.data import prepare
from rethinking.errors import InputError
from tests.data.sets import write


def command(*arguments):
    run = [sys.executable, "-m", "rethinking.data.prepare", *arguments]
    return subprocess.run(run, capture_output=True, text=True)


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_already_prepared(tmp_path, no_tensorflow):
    root, _ = write(tmp_path)
    said = prepare.prepare("planted", str(root))
    folder = root / "planted" / "1.0.0"
    assert said == f"planted is already prepared: 50 training and 15 test images in {folder}"


def test_digits_need_nothing(no_tensorflow):
    assert "nothing to prepare" in prepare.prepare("digits")


def test_prepared_but_damaged(tmp_path):
    root, _ = write(tmp_path)
    file = next((root / "planted" / "1.0.0").glob("*-test.*"))
    file.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{file.name} is damaged.*Delete"):
        prepare.prepare("planted", str(root))


def test_prepared_in_another_format(tmp_path):
    root, _ = write(tmp_path, fileFormat="tfrecord")
    with pytest.raises(InputError, match="tfrecord"):
        prepare.prepare("planted", str(root))


def test_without_tensorflow(tmp_path, no_tensorflow):
    with pytest.raises(InputError, match=r'needs tensorflow.* pip install -e "\.\[prepare\]"'):
        prepare.prepare("mnist", str(tmp_path))


def test_failed_download(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(
        InputError, match=r"mnist could not be prepared.*no route to host\n.*network"
    ):
        prepare.prepare("mnist", str(tmp_path))


def test_no_image_classification_is_refused_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError, match="imdb_reviews is not an image-classification set"):
        prepare.prepare("imdb_reviews", str(tmp_path))


def test_exit_codes(tmp_path):
    unknown = command("cifar11")
    assert (
        unknown.returncode == 2
        and "'cifar10'" in unknown.stderr
        and "Traceback" not in unknown.stderr
    )
    assert command().returncode == command("mnist", "--datadir=x").returncode == 2
    root, _ = write(tmp_path)
    done = command("planted", f"--data_dir={root}")
    assert done.returncode == 0 and "already prepared" in done.stdout
