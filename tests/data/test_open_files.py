"""Sets of more files than a process usually may open, and errors of the operating system."""

import errno
import os
import pathlib
import resource

import numpy as np
import pytest

from rethinking.data import faults, open_files, stream
from rethinking.data.pipeline import Reading
from rethinking.errors import InputError
from tests.data import streams
from tests.data.pictures import encode, noise
from tests.data.sets import example, write_features, write_info, write_shards
from tests.data.streams import assert_same
from tests.data.test_image_folder import write_pair

NUM_SHARDS = 1100


@pytest.fixture
def usual_limit():
    """The limit of 1,024 open files that most systems set, for this test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2 * NUM_SHARDS:
        pytest.skip("this system does not allow so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_set_of_1100_files_streams_under_a_limit_of_1024(tmp_path, usual_limit):
    folder = tmp_path / "shards" / "1.0.0"
    folder.mkdir(parents=True)
    lengths = {"train": [1] * NUM_SHARDS, "validation": [1]}
    splits = []
    for name in lengths:
        splits.append(write_shards(folder, name, [example(encode(noise(20, 20)), 2)], [1]))
        splits[-1]["shardLengths"] = ["1"] * len(lengths[name])
    # Names of one file: each is opened on its own.
    (file,) = folder.glob("*train*")
    for number in range(NUM_SHARDS):
        os.link(file, folder / f"shards-train.array_record-{number:05d}-of-{NUM_SHARDS:05d}")
    write_info(folder, splits)
    write_features(folder, shape=(-1, -1, 3))
    split = stream.load("shards", str(tmp_path)).train
    batches = stream.train_batches(split, 220, 8, 0, False, Reading(num_threads=2, skip_bad=True))
    rows = streams.joined([next(batches) for _ in range(5)])
    num_open = len(os.listdir("/proc/self/fd"))
    batches.close()
    assert sorted(rows.indices) == list(range(NUM_SHARDS))
    assert rows.weights.all() and np.all(rows.labels == 2)
    assert num_open > NUM_SHARDS


@pytest.mark.parametrize("limit", [open_files.OTHERS + 2, open_files.OTHERS + 3])
def test_too_low_a_hard_limit_is_refused_before_an_image_is_read(
    tmp_path, held, monkeypatch, limit
):
    """The set has two files for training and one for evaluation."""

    def refuse(*arguments):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    if limit == open_files.OTHERS + 3:
        assert len(streams.load(tmp_path).train) == streams.NUM
        return
    with pytest.raises(InputError, match=r"pictures has 3 files.* only 202\. .*ulimit -n 203"):
        streams.load(tmp_path)


def test_splits_of_the_same_files_open_them_once(tmp_path, held):
    evaluation = stream.Evaluation(fraction=0.2)
    found = streams.load(tmp_path, evaluation=evaluation)
    assert found.train.records is found.test.records
    assert found.train.records.num_open_files == 2


def fail(code):
    def raise_error(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return raise_error


CODES = [errno.EMFILE, errno.ENOSPC, errno.EIO, errno.ESTALE]


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_system_is_no_bad_record_of_a_folder_or_a_table(
    tmp_path, monkeypatch, code
):
    """The table holds the paths of its images."""
    datasets = pytest.importorskip("datasets")
    from rethinking.data.sources.hugging_face import ColumnRecords

    folder = stream.load(write_pair(tmp_path)).train
    paths = [folder.records.place(index) for index in range(4)]
    rows = {"image": [{"bytes": None, "path": path} for path in paths]}
    rows = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    records = ColumnRecords("train", np.zeros(4, np.int32), True, rows, "image", tmp_path)
    table = stream.Split(records, np.arange(4))
    assert_same(streams.evaluate(table), streams.evaluate(folder)[:1])
    monkeypatch.setattr("rethinking.data.sources.image_folder.open", fail(code), raising=False)
    monkeypatch.setattr(pathlib.Path, "read_bytes", fail(code))
    for split in (folder, table):
        with pytest.raises(InputError, match=rf"JPEG cannot be read: {os.strerror(code)}") as e:
            streams.train(split, 1, skip_bad=True)
        assert "skip_bad" not in str(e.value) and "elete" not in str(e.value)


def test_an_error_of_the_system_in_a_stream_is_explained():
    """Worker processes pass batches through memory that is a file to the system."""

    def batches():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/psm_7c95fa3b")
        yield

    with pytest.raises(InputError, match=r"/psm_7c95fa3b cannot be read: Too many open files"):
        next(stream.Stream(batches(), None))


@pytest.mark.parametrize("code", CODES)
def test_the_system_s_text_is_known_without_its_number(code):
    """A library may raise an error of its own, with the text of the system."""
    error = RuntimeError(f"IOError: cannot open the file ({os.strerror(code)})")
    assert faults.system_cause(error) == os.strerror(code)
    assert faults.system_cause(RuntimeError("cannot open the file")) is None
