"""Batches against what was written to disk: every record once, on any number of processes, from any step on."""

import dataclasses
import itertools
import json
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rethinking import randomize
from rethinking.data import decode, source, stream
from rethinking.data.stream import Reading
from rethinking.errors import InputError
from tests.data.test_arrays import CLASSES, write_features
from tests.data.test_decode import encode, interpolate, linear, noise

SHARDS, SIZE = {"train": [13, 10], "validation": [7]}, 16
NUM = sum(SHARDS["train"])


def write(root, damage=None, label=None, channels=3):
    """A TFDS set "pictures" of noise of differing sizes; `damage` maps a file's place and its records' to others.

    Returns the images and the labels of the training set.
    """
    folder = root / "pictures" / "1.0.0"
    folder.mkdir(parents=True)
    rng, splits, held = np.random.default_rng(0), [], {}
    for name, lengths in SHARDS.items():
        images = [
            noise(rng.integers(20, 40), rng.integers(20, 40), seed) for seed in range(sum(lengths))
        ]
        labels = rng.integers(0, CLASSES, sum(lengths)).astype(np.int32)
        held[name] = images, labels
        records = [
            example(encode(image), label) for image, label in zip(images, labels, strict=True)
        ]
        if damage and name == "train":
            records = damage(records)
        for shard, length in enumerate(lengths):
            file = folder / f"pictures-{name}.array_record-{shard:05d}-of-{len(lengths):05d}"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for record in records[:length]:
                writer.write(record)
            writer.close()
            del records[:length]
        splits.append(
            {"name": name, "shardLengths": [str(length) for length in lengths], "numBytes": "1"}
        )
    info = {"name": "pictures", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    write_features(folder, shape=(-1, -1, channels))
    return held


def example(encoded, label):
    from tensorflow_datasets.proto import tf_example_pb2

    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(encoded)
    record.features.feature["label"].int64_list.value.append(int(label))
    return record.SerializeToString()


@pytest.fixture
def held(tmp_path):
    return write(tmp_path)


def load(root, **subset):
    return stream.load("pictures", str(root), **subset)


def train(split, num_batches, batch_size=4, seed=0, box=True, first_step=0, **reading):
    reading = Reading(**{"num_threads": 2} | reading)
    batches = stream.train_batches(split, batch_size, SIZE, seed, box, reading, first_step)
    taken = list(itertools.islice(batches, num_batches))
    batches.close()
    return taken


def evaluate(split, batch_size=4, **reading):
    return list(
        stream.eval_batches(split, batch_size, SIZE, Reading(**{"num_threads": 2} | reading))
    )


def joined(batches):
    return stream.Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for field, there in zip(batch, other, strict=True):
            assert field.dtype == there.dtype
            np.testing.assert_array_equal(field, there)


def test_check(tmp_path, held):
    stream.check("pictures", str(tmp_path))
    info = source.find("pictures", str(tmp_path)).info
    assert info == source.Info(NUM, 7, (-1, -1, 3), CLASSES)


def test_a_batch(tmp_path, held):
    (batch,) = train(load(tmp_path).train, 1)
    assert (batch.images.shape, batch.images.dtype) == ((4, SIZE, SIZE, 3), np.uint8)
    assert [field.dtype for field in batch[1:]] == [np.int32, np.int64, np.int32, np.float32]
    assert all(field.shape == (4,) for field in batch[1:]) and np.all(batch.weights == 1)


def test_every_epoch_has_every_record_once(tmp_path, held):
    """In batches that straddle the epochs: 23 records in fours, or in nines."""
    images, labels = held["train"]
    for batch_size in (4, 9):
        rows = joined(train(load(tmp_path).train, 2 * NUM // batch_size + 1, batch_size, box=False))
        orders = [rows.indices[:NUM].tolist(), rows.indices[NUM : 2 * NUM].tolist()]
        assert [sorted(order) for order in orders] == [list(range(NUM))] * 2
        assert orders[0] != orders[1] and orders[0] != sorted(orders[0])
        np.testing.assert_array_equal(rows.epochs, np.arange(len(rows.epochs)) // NUM)
        np.testing.assert_array_equal(rows.labels, labels[rows.indices])
        for image, index in zip(rows.images, rows.indices, strict=True):
            np.testing.assert_array_equal(image, decode.central_view(encode(images[index]), SIZE))


def test_orders_depend_on_the_seed(tmp_path, held):
    split = load(tmp_path).train
    orders = [joined(train(split, 6, seed=seed, box=False)).indices.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_rows_make_up_the_batch(tmp_path, held, processes):
    split = load(tmp_path).train
    whole = train(split, 8, 6)
    share = 6 // processes
    parts = [train(split, 8, 6, rows=slice(i * share, (i + 1) * share)) for i in range(processes)]
    assert_same([joined(part) for part in zip(*parts, strict=True)], whole)


@pytest.mark.parametrize("first_step", [1, 5, 6, 40])
def test_a_stream_continues_from_any_step(tmp_path, held, first_step):
    split = load(tmp_path).train
    assert_same(train(split, 3, first_step=first_step), train(split, first_step + 3)[first_step:])


def test_worker_processes_change_nothing(tmp_path, held):
    split, rows = load(tmp_path).test, slice(1, 3)
    assert_same(
        evaluate(split, 3, rows=rows, num_workers=2), evaluate(split, 3, rows=rows)
    )  # 3 batches from 2 workers


@pytest.mark.slow
def test_worker_processes_change_nothing_in_training(tmp_path, held):
    split, settings = load(tmp_path).train, {"first_step": 3, "rows": slice(1, 4)}
    for workers in (1, 2, 3):
        assert_same(train(split, 7, num_workers=workers, **settings), train(split, 7, **settings))


def test_boxes_depend_on_seed_epoch_and_index_alone(tmp_path, held):
    def drawn(split, **settings):
        rows = joined(train(split, 12, **settings))
        assert len(rows.images) > 2 * len(split)
        return {
            (int(e), int(i)): image
            for e, i, image in zip(rows.epochs, rows.indices, rows.images, strict=True)
        }

    everything = drawn(load(tmp_path).train)
    for other in (
        drawn(load(tmp_path).train, batch_size=5),
        drawn(load(tmp_path, num_train=9, seed=1).train),
    ):
        common = everything.keys() & other.keys()
        assert len(common) >= 18
        for key in common:
            np.testing.assert_array_equal(other[key], everything[key])
    another_seed = drawn(load(tmp_path).train, seed=1)
    for index in range(NUM):
        assert np.any(everything[0, index] != everything[1, index])
        assert np.any(everything[0, index] != another_seed[0, index])


def test_subsets_are_those_of_sets_in_memory(tmp_path, held):
    _, labels = held["train"]
    split = load(tmp_path, num_train=9, seed=5).train
    expected = np.random.default_rng(5).permutation(NUM)[:9]
    rows = joined(evaluate(split, 3))
    np.testing.assert_array_equal(rows.indices, expected)
    np.testing.assert_array_equal(rows.labels, labels[expected])
    assert sorted(joined(train(split, 9, 1)).indices) == sorted(expected)
    assert len(load(tmp_path, num_test=3).test) == 3
    with pytest.raises(InputError, match=r"num_train must be 0 \(all\) to 23.* 24"):
        load(tmp_path, num_train=24)


def test_random_labels_stay_the_same(tmp_path, held):
    """In every epoch, on any subset, in training and evaluation: those of `randomize.corrupt_labels`."""
    _, labels = held["train"]
    table = randomize.corrupt_labels(np.full(NUM, -1, np.int32), np.arange(NUM), CLASSES, 0.7, 3)

    def corrupt(labels, indices):
        return np.where(table[indices] < 0, labels, table[indices])

    expected = randomize.corrupt_labels(labels, np.arange(NUM), CLASSES, 0.7, 3)
    assert np.any(expected != labels)
    for num_train in (0, 11):
        split = dataclasses.replace(load(tmp_path, num_train=num_train).train, corrupt=corrupt)
        rows = joined(train(split, 18))
        assert rows.epochs.max() >= 2
        np.testing.assert_array_equal(rows.labels, expected[rows.indices])
        rows = joined(evaluate(split, 11))
        np.testing.assert_array_equal(rows.labels[rows.weights > 0], expected[split.indices])


@pytest.mark.parametrize("batch_size, num_batches", [(3, 3), (7, 1), (10, 1)])
def test_evaluation_has_every_record_once(tmp_path, held, batch_size, num_batches):
    images, labels = held["validation"]
    split = load(tmp_path).test
    batches = evaluate(split, batch_size)
    assert [len(batch.labels) for batch in batches] == [batch_size] * num_batches
    rows, padding = joined(batches), num_batches * batch_size - 7
    np.testing.assert_array_equal(rows.weights, [1] * 7 + [0] * padding)
    np.testing.assert_array_equal(rows.indices, [*range(7)] + [-1] * padding)
    np.testing.assert_array_equal(rows.labels, [*labels] + [0] * padding)
    for image, original in zip(rows.images[:7], images, strict=True):
        np.testing.assert_array_equal(image, decode.central_view(encode(original), SIZE))
    assert not rows.images[7:].any()


def test_processes_evaluate_the_same_number_of_batches(tmp_path, held):
    split = load(tmp_path).test
    halves = [evaluate(split, 6, rows=slice(i * 3, i * 3 + 3)) for i in (0, 1)]
    assert_same([joined(parts) for parts in zip(*halves, strict=True)], evaluate(split, 6))
    assert not halves[1][-1].weights.any(), "with nothing but padding in the last"


def test_a_closed_stream_ends(tmp_path, held):
    batches = stream.train_batches(load(tmp_path).train, 4, SIZE, 0, True, Reading(num_threads=2))
    next(batches)
    batches.close()
    assert list(batches) == []


# In each case the records 5 and 15, which is the third of the second file, are bad.
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
    rf"pictures-train\.array_record-{file:05d}-of-00002: record {place}, which is {index} of the split train, cannot be"
    r" used: .+\. Set data\.skip_bad=True .*prepare"
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


def test_worker_processes_outlive_a_sigterm_to_all_processes_of_a_program(held, tmp_path):
    split = load(tmp_path).train
    batches = stream.train_batches(split, 4, SIZE, 0, True, Reading(num_threads=2, num_workers=2))
    taken = [next(batches)]
    workers = [
        child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) >= 2
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    taken += itertools.islice(batches, 20)
    batches.close()
    assert_same(taken, train(split, 21))
    assert not any(
        worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers
    )


def test_worker_processes_end_when_the_process_they_read_for_is_killed(held, tmp_path):
    program = (
        "import sys, time\nfrom rethinking.data import stream\nif __name__ == '__main__':\n"
        "    split = stream.load('pictures', sys.argv[1]).train\n"
        "    reading = stream.Reading(num_threads=2, num_workers=2)\n"
        "    batches = stream.train_batches(split, 4, 16, 0, True, reading)\n    next(batches)\n"
        "    print('reading', flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = psutil.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "reading\n"
    workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]


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
    assert "Skipped" in caplog.text and "record 2, which is 15 of" in caplog.text
    evaluation = stream.eval_batches(split, 10, SIZE, Reading(num_threads=2, skip_bad=True))
    weights = joined(list(evaluation)).weights
    assert weights.sum() == NUM - 2, "padding is not counted"


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
            match=r"pictures have no 3 channels: .*streamed, but prepared with 3 channels",
        ):
            function("pictures", str(tmp_path))
        with pytest.raises(InputError, match="digits is no TFDS set"):
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


def test_imagenette(tfds_dir):
    """Photographs, against TFDS's own decoding."""
    root = tfds_dir("imagenette_subset")
    stream.check("imagenette_subset", root)
    info = source.find("imagenette_subset", root).info
    assert info == source.Info(5000, 1500, (-1, -1, 3), 10)
    split = stream.load("imagenette_subset", root, num_test=8).test
    (rows,) = stream.eval_batches(split, 8, 75, Reading())
    records = source.open_records(source.find("imagenette_subset", root), "test")
    for image, label, index in zip(rows.images, rows.labels, split.indices, strict=True):
        original = records[int(index)]
        top, left, height, width = decode.central_box(*original["image"].shape[:2])
        middle = original["image"][top : top + height, left : left + width]
        assert label == original["label"]
        assert np.abs(image - interpolate(middle, 75, linear)).max() < 1.5 + 1e-3, (
            "decoders differ by one"
        )
    split = stream.load("imagenette_subset", root).train
    rows = next(stream.train_batches(split, 64, 75, 0, True, Reading()))
    assert len(set(rows.indices)) == 64 and len(set(rows.labels)) == 10
    assert rows.images.std() > 40
