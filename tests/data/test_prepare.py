"""The answers of `python -m rethinking.data.prepare` when it downloads nothing."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rethinking.data import prepare
from rethinking.errors import InputError
from tests.data import own_sets
from tests.data.sets import without, write


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


BUILDER = """import tensorflow_datasets as tfds

class {name}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({{
            "image": tfds.features.Image(shape=(5, 6, 3)),
            "label": {label},
        }}))

    def _split_generators(self, manager):
        raise FileNotFoundError("photos.zip")

    def _generate_examples(self):
        pass
"""
LABEL = "tfds.features.ClassLabel(num_classes=4)"


def camel(name):
    return "".join(map(str.capitalize, name.split("_")))


@pytest.fixture
def write_builder(tmp_path, monkeypatch):
    """A function that writes a TFDS builder of one's own to the present folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def write_to(path, name, label=LABEL):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(BUILDER.format(name=name, label=label))
        return folder / path

    return write_to


@pytest.mark.parametrize(
    "name, place",  # Python imports a module once only.
    [
        ("one", "one/one_dataset_builder.py"),
        ("two_sets", "two_sets/two_sets.py"),
        ("tri", "tri.py"),
    ],
)
def test_a_builder_of_ones_own_is_found(tmp_path, monkeypatch, write_builder, name, place):
    """Its file is where TFDS's own program looks for it. What it prepares is a stand-in here."""
    import tensorflow_datasets as tfds

    builder = "_dataset_builder" in place
    write_builder(place, "Builder" if builder else camel(name))
    prepared = []

    def download_and_prepare(self):
        prepared.append((self.name, str(self.data_dir), self.info.file_format.value))
        write(tmp_path / "tfds", name=name)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    root = tmp_path / "tfds"
    said = prepare.prepare(name, str(root))
    assert said.startswith(f"{name} is prepared: 50 training and 15 test images in {root}")
    assert prepared == [(name, f"{root}/{name}/1.0.0", "array_record")]
    assert "already prepared" in prepare.prepare(name, str(root))


def test_a_builder_under_another_name_is_refused(tmp_path, write_builder):
    write_builder("pictures_of_mine.py", "MyPictures")
    with pytest.raises(
        InputError, match=r"pictures_of_mine\.py defines the set my_pictures\. Rename"
    ):
        prepare.prepare("pictures_of_mine", str(tmp_path))


def test_a_mistake_in_ones_own_builder_has_a_place(tmp_path, write_builder):
    file = write_builder("broken_set.py", "BrokenSet", label="tfds.features.ClassLabl()")
    with pytest.raises(
        InputError, match=rf"broken_set could not be prepared.*{file}, line 9: AttributeError.*Labl"
    ):
        prepare.prepare("broken_set", str(tmp_path))


def test_a_text_as_label_is_refused_before_the_download(tmp_path, write_builder):
    write_builder("texts.py", "Texts", label="tfds.features.Text()")
    with pytest.raises(InputError, match="its feature label is a Text, but must be a ClassLabel"):
        prepare.prepare("texts", str(tmp_path))


def test_programs_that_are_called_like_a_set_are_not_run(tmp_path, write_builder):
    write_builder("mnist.py", "Mnist").write_text("raise SystemExit('run')")
    assert prepare.builder_file("mnist") is None


def test_a_set_with_training_images_alone_is_prepared(tmp_path, no_tensorflow):
    root, _ = write(tmp_path)
    without("test", root)
    said = prepare.prepare("planted", str(root))
    assert "50 training and 0 test images with labels (config.data.test_fraction holds out" in said


def test_what_interrupted_preparations_left_is_named(tmp_path, no_tensorflow, caplog):
    folder = tmp_path / "mnist" / "incomplete.ABCDEF_3.0.1"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="needs tensorflow"):
        prepare.prepare("mnist", str(tmp_path))
    assert f"{folder} is incomplete" in caplog.text


def test_a_set_of_ones_own_is_described(tmp_path):
    held = own_sets.digits()
    folder = str(own_sets.write_folder(tmp_path / "set", held))
    np.savez(tmp_path / "table.npz", x_train=np.eye(4), y_train=np.arange(4) % 2)
    for name, message in (
        (folder, "40 images of 8 x 8 x 3 for training, and 20 in test, in 10 classes"),
        (str(tmp_path / "table.npz"), "4 vectors of 4 features for training, and none to evaluate"),
    ):
        assert f"{name} needs no preparation: {message}" in prepare.prepare(name)
    with pytest.raises(InputError, match="there is no such file"):
        prepare.prepare("./no_such_set.npz")


def archive(folder, name, size):
    """A file of this size that takes no place on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("given", [True, False])
def test_imagenet_s_archives_are_named_before_tensorflow_is_asked_for(
    tmp_path, no_tensorflow, monkeypatch, given
):
    place = tmp_path / "archives" if given else tmp_path / "tfds" / "downloads" / "manual"
    options = {"manual_dir": str(place)} if given else {}

    def try_it(match):
        with pytest.raises(InputError, match=match):
            prepare.prepare("imagenet2012", str(tmp_path / "tfds"), **options)

    try_it(
        rf"{place}/ILSVRC2012_img_train\.tar is missing\. .*ILSVRC2012_img_val\.tar.*image-net\.org"
        rf".* Put them into {place}, or name their folder by --manual_dir"
    )
    archive(place, "ILSVRC2012_img_train.tar", 147_897_477_120)
    try_it(r"ILSVRC2012_img_val\.tar is missing")
    archive(place, "ILSVRC2012_img_val.tar", 6_744_924_159)
    try_it(r"_val\.tar has 6,744,924,159 bytes instead of 6,744,924,160, so it is .* cut short")
    archive(place, "ILSVRC2012_img_val.tar", 6_744_924_160)
    free = shutil.disk_usage(tmp_path)._replace(free=150 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    try_it(r"Preparing imagenet2012 takes 162\.4 GB in .*tfds, but the disk has only 150\.0 GB")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=165 * 10**9))
    try_it("needs tensorflow")


def test_the_folder_of_archives_is_handed_on(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    handed = []

    def download_and_prepare(self, download_config):
        handed.append(str(download_config.manual_dir))
        write(tmp_path, name="mnist", version="3.0.1")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    prepare.prepare("mnist", str(tmp_path), manual_dir=str(tmp_path / "by hand"))
    assert handed == [str(tmp_path / "by hand")]


def test_the_command_writes_the_smaller_copy(tmp_path, capsys, held):
    words = ["prepare", "pictures", f"--data_dir={tmp_path}", "--short_side=24"]
    prepare.main(prepare.parse(words))
    said = capsys.readouterr().out
    assert "pictures is already prepared" in said
    assert "pictures_short_side_24 will have 30 images and about 0.0" in said
    assert "pictures_short_side_24 is prepared" in said
    prepare.main(prepare.parse(words))
    assert "pictures_short_side_24 is already prepared" in capsys.readouterr().out
