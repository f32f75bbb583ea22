"""The same images in every form of a set: the same arrays, and the same run to the last bit."""

import sys

import numpy as np
import pytest

from rethinking import experiments
from rethinking.data import arrays, formats, source
from tests.data import own_sets
from tests.data.pictures import encode
from tests.data.sets import example, write_features, write_info, write_shards
from tests.experiments.trained import lines, quickstart, untimed

datasets = pytest.importorskip("datasets")


def write_tfds(root, held):
    """Writes the TFDS set "twin" to the folder `root`."""
    folder = root / "twin" / "1.0.0"
    folder.mkdir(parents=True)
    splits = []
    for key in ("train", "test"):
        records = []
        for image, label in zip(held[f"x_{key}"], held[f"y_{key}"], strict=True):
            records.append(example(encode(image), label))
        splits.append(write_shards(folder, key, records, [len(records)]))
    write_info(folder, splits)
    label = {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}
    label |= {"classLabel": {"numClasses": "10"}}
    write_features(folder, shape=held["x_train"].shape[1:], label=label)


def table(held, key):
    images = [{"bytes": encode(image), "path": None} for image in held[f"x_{key}"]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(10)})
    content = {"image": images, "label": held[f"y_{key}"].tolist()}
    return datasets.Dataset.from_dict(content, features=features)


MODULE = """import numpy as np


def load():
    file = np.load({path!r})
    return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])
"""


def write_all(root, held):
    """Writes the arrays in every form. Returns the names of the sets."""
    write_tfds(root, held)
    np.savez(root / "twin.npz", **held)
    own_sets.write_folder(root / "folder", held)
    tables = {key: table(held, key) for key in ("train", "test")}
    own_sets.write_saved(root / "saved", tables)
    own_sets.write_parquet(root / "parquet", tables)
    (root / "own_twin.py").write_text(MODULE.format(path=str(root / "twin.npz")))
    paths = [str(root / name) for name in ("twin.npz", "folder", "saved", "parquet")]
    return ["twin", *paths, "own_twin:load"]


def cifar10(tfds_dir):
    """2,000 images of CIFAR10 for training and 400 for testing, sorted by class."""
    found = source.find("cifar10", tfds_dir("cifar10"))
    held = {}
    for key, num in (("train", 2000), ("test", 400)):
        records = sorted(found.records(key).read_many(range(num)), key=lambda record: record[1])
        held[f"x_{key}"] = np.stack([formats.decode(encoded) for encoded, _ in records])
        held[f"y_{key}"] = np.array([label for _, label in records])
    return held


def run(name, folder, workdir):
    """The lines and the result of a short run on a set, without what its name and time decide."""
    settings = {"data__data_dir": folder, "data__num_train": 150, "max_epochs": 2}
    config = quickstart("random_labels", data__name=name, **settings)
    result = experiments.run(config, workdir)
    assert (result["data_source"] is not None) is (name == "own_twin:load")
    without = {"config_digest", "data_source", "metrics_sha256", "sha256"}
    measured = [untimed(line) for line in lines(workdir)]
    return measured, {key: result[key] for key in untimed(result).keys() - without}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for the sets, from which modules are imported, and which holds the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_twin", None)


def test_every_form_of_a_set_gives_the_same_arrays(folder):
    held = own_sets.digits(160, 60)
    for name in write_all(folder, held):
        own_sets.assert_holds(arrays.load(name, str(folder)), held)


@pytest.mark.slow
def test_every_form_of_a_set_gives_the_same_run(folder, tfds_dir):
    held = cifar10(tfds_dir)
    found = []
    for number, name in enumerate(write_all(folder, held)):
        own_sets.assert_holds(arrays.load(name, str(folder)), held)
        found.append(run(name, folder, folder / "runs" / str(number)))
    assert len(found) == 6 and len(found[0][0]) >= 2
    for each in found[1:]:
        assert each == found[0]
