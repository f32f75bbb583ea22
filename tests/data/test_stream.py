"""Batches against the records on disk, on any number of processes, from any step on."""

import dataclasses

import numpy as np
import pytest

from rethinking import randomize
from rethinking.data import decode, source, stream
from rethinking.data.pipeline import Reading
from rethinking.data.sources import tfds_records
from rethinking.errors import InputError
from tests.data.pictures import encode, interpolate, linear
from tests.data.sets import CLASSES
from tests.data.streams import NUM, SIZE, assert_same, evaluate, joined, load, train


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
    """Also in batches across the end of an epoch: 23 records in batches of 4, or of 9."""
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
    """They are those of `randomize.corrupt_labels`, in every epoch, subset and evaluation."""
    _, labels = held["train"]
    corrupt = randomize.label_corruption(NUM, CLASSES, 0.7, 3)
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
    assert not halves[1][-1].weights.any(), "the last batch is only padding"


def test_a_closed_stream_ends(tmp_path, held):
    batches = stream.train_batches(load(tmp_path).train, 4, SIZE, 0, True, Reading(num_threads=2))
    next(batches)
    batches.close()
    assert list(batches) == []


def test_imagenette(tfds_dir):
    """Photographs, against the decoding of TFDS."""
    root = tfds_dir("imagenette_subset")
    stream.check("imagenette_subset", root)
    info = source.find("imagenette_subset", root).info
    assert info == source.Info(5000, 1500, (-1, -1, 3), 10)
    split = stream.load("imagenette_subset", root, num_test=8).test
    (rows,) = stream.eval_batches(split, 8, 75, Reading())
    stored = tfds_records.open_split(
        source.find("imagenette_subset", root).folder, "validation", decode=True
    )
    for image, label, index in zip(rows.images, rows.labels, split.indices, strict=True):
        original = stored[int(index)]
        top, left, height, width = decode.central_box(*original["image"].shape[:2])
        middle = original["image"][top : top + height, left : left + width]
        assert label == original["label"]
        # The decoders differ by one grey level.
        assert np.abs(image - interpolate(middle, 75, linear)).max() < 1.5 + 1e-3
    split = stream.load("imagenette_subset", root).train
    rows = next(stream.train_batches(split, 64, 75, 0, True, Reading()))
    assert len(set(rows.indices)) == 64 and len(set(rows.labels)) == 10
    assert rows.images.std() > 40
