"""Which split is evaluated, and training images that are held out."""

import numpy as np
import pytest

from rethinking.data import arrays, source, stream
from rethinking.data.description import HELD_OUT
from rethinking.data.sources.tfds_records import TfdsRecords
from rethinking.data.splits import Evaluation, hold_out
from rethinking.errors import InputError
from tests.data.pictures import encode, noise
from tests.data.sets import example, write_features, write_info, write_shards

NUM = 40


def write(root, sizes, unlabelled=(), shape=(6, 8, 3)):
    """Writes the set "mixed": splits of these sizes, of which some have the label -1 only."""
    folder = root / "mixed" / "1.0.0"
    folder.mkdir(parents=True)
    splits = []
    for name, size in sizes.items():
        records = []
        for index in range(size):
            label = -1 if name in unlabelled else index % 4
            records.append(example(encode(noise(6, 8, index)), label))
        splits.append(write_shards(folder, name, records, [size] if size else []))
    write_info(folder, splits)
    write_features(folder, shape=shape)
    return str(root)


def both(root, **settings):
    """The set, resident and streamed."""
    settings["evaluation"] = settings.get("evaluation", Evaluation())
    return [module.load("mixed", root, **settings) for module in (arrays, stream)]


@pytest.mark.parametrize(
    "sizes, unlabelled, chosen",
    [
        ({"train": NUM, "validation": 12, "test": 9}, {"test"}, "validation"),
        ({"train": NUM, "validation": 12, "test": 9}, {}, "test"),
        ({"train": NUM, "validation": 12, "test": 0}, {}, "validation"),
        ({"train": NUM, "test": 9, "val": 12}, {"test"}, "val"),
        ({"train": NUM, "valid": 12, "test": 9}, {"test"}, "valid"),
        ({"train": NUM, "dev": 12}, {}, "dev"),
        ({"train": NUM, "test": 9, "dev": 3, "validation": 12}, {"test"}, "validation"),
        ({"train": NUM, "test_matched": 12, "extra": 3}, {}, "test_matched"),
    ],
)
def test_the_first_split_with_labels_is_evaluated(tmp_path, sizes, unlabelled, chosen):
    root = write(tmp_path, sizes, unlabelled)
    stream.check("mixed", root)
    info = arrays.describe("mixed", root)
    assert (info.num_train, info.num_test, info.eval_split) == (NUM, sizes[chosen], chosen)
    for dataset in both(root):
        assert dataset.eval_split == chosen
        assert (len(dataset.train.indices), len(dataset.test.indices)) == (NUM, sizes[chosen])
    resident, streamed = both(root)
    np.testing.assert_array_equal(resident.test.labels, np.arange(sizes[chosen]) % 4)
    np.testing.assert_array_equal(resident.test.images[2], noise(6, 8, 2))
    assert streamed.test.records.read(5)[1] == 1


def test_a_split_is_named(tmp_path):
    root = write(tmp_path, {"train": NUM, "validation": 12, "test": 9, "extra": 20})
    for name, size in (("extra", 20), ("validation", 12), ("test", 9)):
        for dataset in both(root, evaluation=Evaluation(name)):
            assert (dataset.eval_split, len(dataset.test.indices)) == (name, size)


UNLABELLED = {"train": NUM, "validation": 5, "test": 9}


@pytest.mark.parametrize(
    "sizes, evaluation, message",
    [
        (UNLABELLED, Evaluation(), r"test has no labels\. validation has no labels\. Hold out .*"),
        ({"train": NUM, "test": 9}, Evaluation(), r"test has no labels\. .*test_fraction=0\.1"),
        ({"train": NUM}, Evaluation(), r"and has train\. Hold out .*data\.test_fraction=0\.1"),
        ({"train": NUM, "extra": 9}, Evaluation(), r"has train, extra\. Name .*eval_split=extra"),
        (UNLABELLED, Evaluation("test"), r"eval_split=test: .*no labels.*mixed \(validation\)"),
        (
            {"train": NUM, "test": 9},
            Evaluation("test"),
            r"have no labels\. To evaluate",
        ),
        ({"train": NUM, "extra": 0}, Evaluation("extra"), r"extra: it has no examples\. To"),
        (UNLABELLED, Evaluation("tset"), r"mixed has no split 'tset'\. Did you mean 'test'"),
        (UNLABELLED, Evaluation("train"), r"would evaluate the training examples"),
        (UNLABELLED, Evaluation("test", 0.1), r"eval_split=test has no effect beside"),
        (UNLABELLED, Evaluation(fraction=0.01), r"test_fraction=0\.01 of 40 .* is 0\."),
        (UNLABELLED, Evaluation(fraction=0.99), r"test_fraction=0\.99 of 40 .* is 40\."),
        (UNLABELLED, Evaluation(fraction=1.5), r"test_fraction=1\.5: must be"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_decoded(
    tmp_path, monkeypatch, sizes, evaluation, message
):
    root = write(tmp_path, sizes, {"validation", "test"})
    monkeypatch.setattr(TfdsRecords, "read_many", lambda *arguments: pytest.fail())
    for function in (arrays.describe, arrays.load, stream.check):
        with pytest.raises(InputError, match=message):
            function("mixed", root, evaluation=evaluation)


def test_only_a_few_records_are_read_to_find_labels(tmp_path, monkeypatch):
    root = write(tmp_path, {"train": NUM, "validation": 12, "test": 100}, {"test"})
    read = []
    function = TfdsRecords.read_any_label
    monkeypatch.setattr(
        TfdsRecords,
        "read_any_label",
        lambda self, index: read.append(index) or function(self, index),
    )
    assert source.find("mixed", root).names["test"] == "validation"
    assert len(read) == 17 and read[:3] == [0, 6, 12] and max(read) == 93


def test_a_record_without_a_label_in_a_split_with_labels_is_named(tmp_path):
    root = write(tmp_path, {"train": NUM, "test": 9})
    records = [example(encode(noise(6, 8)), label) for label in (0, 1, -1, 2)]
    folder = tmp_path / "mixed" / "1.0.0"
    splits = [write_shards(folder, name, records, [4]) for name in ("train", "test")]
    write_info(folder, splits)
    with pytest.raises(
        InputError, match=r"train\.array_record-00000-of-00001: record 2 .* its label is -1"
    ):
        arrays.load("mixed", root)


def test_experiments_without_evaluation_need_no_test_set(tmp_path):
    root = write(tmp_path, {"train": NUM, "test": 9}, {"test"})
    dataset = arrays.load("mixed", root, evaluation=Evaluation(needed=False))
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (NUM, 0)
    assert dataset.eval_split == ""


@pytest.mark.parametrize("sizes", [{"train": NUM}, {"train": NUM, "test": 9}])
def test_held_out_images_are_the_same_for_all_seeds_and_never_trained_on(tmp_path, sizes):
    root = write(tmp_path, sizes, {"test"})
    train, test = hold_out(NUM, 0.3)
    assert sorted([*train, *test]) == list(range(NUM)) and len(test) == 12
    evaluation = Evaluation(fraction=0.3)
    assert arrays.describe("mixed", root, evaluation=evaluation).train_size == NUM
    for seed in (0, 1):
        for dataset in both(root, evaluation=evaluation, seed=seed):
            assert dataset.eval_split == HELD_OUT
            np.testing.assert_array_equal(dataset.train.indices, train)
            np.testing.assert_array_equal(dataset.test.indices, test)
    resident, streamed = both(root, evaluation=evaluation, num_train=9, num_test=5, seed=3)
    for split, there in ((resident.train, train), (resident.test, test)):
        assert set(split.indices) < set(there)
        np.testing.assert_array_equal(split.labels, split.indices % 4)
        for image, index in zip(split.images, split.indices, strict=True):
            np.testing.assert_array_equal(image, noise(6, 8, index))
    for key in ("train", "test"):
        indices = getattr(streamed, key).indices
        np.testing.assert_array_equal(indices, getattr(resident, key).indices)
        assert getattr(streamed, key).records.read(int(indices[1]))[1] == indices[1] % 4


def test_a_larger_fraction_holds_out_the_images_of_a_smaller_one_too():
    for total in (7, 1437):
        small, large = (hold_out(total, fraction)[1] for fraction in (0.2, 0.5))
        assert set(small) < set(large)
        assert (len(small), len(large)) == (round(total * 0.2), round(total * 0.5))


def test_held_out_images_come_from_everywhere():
    """A run test: the number of held-out images in each tenth of the set is near its mean."""
    _, test = hold_out(10_000, 0.2)
    counts = np.histogram(test, 10, (0, 10_000))[0]
    assert np.abs(counts - 200).max() < 4 * np.sqrt(1000 * 0.2 * 0.8)


def test_the_cache_is_shared_with_runs_that_hold_images_out(tmp_path, cache):
    root = write(tmp_path, {"train": NUM, "test": 9})
    arrays.load("mixed", root)
    arrays.load("mixed", root, evaluation=Evaluation(fraction=0.1))
    arrays.load("mixed", root, evaluation=Evaluation(needed=False))
    assert len(list(cache.iterdir())) == 1


def test_digits_can_be_held_out():
    whole = arrays.load("digits")
    part = arrays.load("digits", evaluation=Evaluation(fraction=0.25))
    assert (len(part.train.labels), len(part.test.labels)) == (1078, 359)
    for split in (part.train, part.test):
        np.testing.assert_array_equal(split.labels, whole.train.labels[split.indices])
        np.testing.assert_array_equal(split.images, whole.train.images[split.indices])
    with pytest.raises(InputError, match="digits has no split 'validation'"):
        arrays.load("digits", evaluation=Evaluation("validation"))
