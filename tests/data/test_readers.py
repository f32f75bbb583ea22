"""How many threads and worker processes read, by cores, shared memory and images."""

import collections

import pytest

from rethinking.data import readers
from rethinking.errors import InputError

GB = 10**9
Usage = collections.namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    "cores, images, expected",
    [
        (1, None, (16, 0)),
        (7, None, (16, 0)),  # as before the numbers followed the host
        (8, None, (16, 2)),
        (112, None, (112, 28)),  # a TPU v5e host with four chips
        (112, 9_999, (112, 0)),
        (112, 10_000, (112, 28)),
        (224, None, (224, 56)),
    ],
)
def test_threads_and_workers_follow_the_cores(monkeypatch, cores, images, expected):
    monkeypatch.setattr(readers.shutil, "disk_usage", lambda folder: Usage(96 * GB, 0, 96 * GB))
    assert readers.choose(0, -1, cores, 70 * 10**6, images) == expected


@pytest.mark.parametrize(
    "free, asked, expected",
    [
        (64 * 10**6, -1, 0),  # Docker's default
        (GB, -1, 7),
        (GB, 7, 7),
        (64 * 10**6, 0, 0),
    ],
)
def test_workers_have_room_for_two_batches_each(monkeypatch, free, asked, expected):
    monkeypatch.setattr(readers.shutil, "disk_usage", lambda folder: Usage(free, 0, free))
    assert readers.choose(0, asked, 112, 70 * 10**6)[1] == expected


def test_what_is_asked_for_is_kept_or_refused(monkeypatch, tmp_path):
    assert readers.choose(3, 2, 112, 1000, num_images=10) == (3, 2)
    assert readers.choose(3, -1, 112, 1000) == (3, 3)
    with pytest.raises(InputError, match=r"num_workers=3: .* has 2\. Choose at most as many, or 0"):
        readers.choose(3, 3, 2, 1000)
    monkeypatch.setattr(readers.shutil, "disk_usage", lambda folder: Usage(GB, 0, GB))
    with pytest.raises(
        InputError, match=r"num_workers=8: .* 70 MB in /dev/shm, .* room for 7 workers.*--shm-size"
    ):
        readers.choose(0, 8, 112, 70 * 10**6)
    monkeypatch.setattr(readers, "SHARED_MEMORY", tmp_path / "none")
    assert readers.choose(0, 8, 112, 70 * 10**6) == (112, 8)
