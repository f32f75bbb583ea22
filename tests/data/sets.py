"""TFDS sets, written by hand."""

import json

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from tests.data.pictures import encode

CLASSES, SHAPE, SHARDS = 4, (5, 6, 3), {"train": [30, 20], "test": [15]}


def write(root, version="1.0.0", test="test", seed=0, name="planted", **metadata):
    """Writes the set `name` to the folder `root`. Returns the folder and the set's arrays.

    `test` is the name of the split for testing, and `metadata` is added to the set's description.
    """
    folder = root / name / version
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    held, splits = {}, []
    for key, lengths in SHARDS.items():
        images = rng.integers(0, 256, (sum(lengths), *SHAPE), dtype=np.uint8)
        labels = rng.integers(0, CLASSES, sum(lengths)).astype(np.int32)
        records = []
        for image, label in zip(images, labels, strict=True):
            records.append(example(encode(image), label))
        splits.append(write_shards(folder, test if key == "test" else key, records, lengths))
        held |= {f"{key}_images": images, f"{key}_labels": labels}
    write_info(folder, splits, **metadata)
    write_features(folder)
    return root, held


def example(encoded, label):
    """A record with an encoded image and a label, as TFDS stores it."""
    from tensorflow_datasets.proto import tf_example_pb2

    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(encoded)
    record.features.feature["label"].int64_list.value.append(int(label))
    return record.SerializeToString()


def write_shards(folder, split, records, lengths):
    """Writes a split's records to files with `lengths` of them. Returns the split's description."""
    name = folder.parent.name
    rest = iter(records)
    for shard, length in enumerate(lengths):
        file = folder / f"{name}-{split}.array_record-{shard:05d}-of-{len(lengths):05d}"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for _ in range(length):
            writer.write(next(rest))
        writer.close()
    return {"name": split, "shardLengths": [str(length) for length in lengths], "numBytes": "1"}


def write_info(folder, splits, **metadata):
    info = {
        "name": folder.parent.name,
        "version": folder.name,
        "fileFormat": "array_record",
        "splits": splits,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info | metadata))


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


def without(split, root, version="1.0.0"):
    """Removes a split from the set "planted". CIFAR10.1 has no training split either."""
    description = root / "planted" / version / "dataset_info.json"
    info = json.loads(description.read_text())
    info["splits"] = [other for other in info["splits"] if other["name"] != split]
    description.write_text(json.dumps(info))


def without_train(root, version="1.0.0"):
    """Removes the training split from the set "planted"."""
    without("train", root, version)


def assert_holds(dataset, held):
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, held[f"{key}_images"])
        np.testing.assert_array_equal(split.labels, held[f"{key}_labels"])
        np.testing.assert_array_equal(split.indices, np.arange(len(held[f"{key}_labels"])))
