"""The cache of decoded images on broken disks: damaged, unfinished, full, and not readable."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rethinking.data import arrays
from rethinking.data import cache as module
from tests.data.sets import assert_holds

FILES = [*(f"{part}_{kind}.npy" for part in ("train", "test") for kind in ("images", "labels"))]


@pytest.fixture
def load(planted, cache):
    """A function that loads the set "planted", of which a cache is there; and the set's arrays."""
    root, held = planted
    arrays.load("planted", str(root))
    return lambda: arrays.load("planted", str(root)), held


def only(cache):
    (folder,) = cache.iterdir()
    return folder


def test_a_flipped_bit_in_any_file_is_found_and_mended(load, cache, caplog):
    again, held = load
    assert sorted(path.name for path in only(cache).iterdir()) == sorted([*FILES, "digests.json"])
    for name in (*FILES, "digests.json"):
        whole = (only(cache) / name).read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 5):
            content = bytearray(whole)
            content[at] ^= 1 << (at % 7)
            (only(cache) / name).write_bytes(content)
            caplog.clear()
            assert_holds(again(), held)
            assert str(only(cache) / name) in caplog.text or name == "digests.json"
            assert "decoded again" in caplog.text
            assert (only(cache) / name).read_bytes() == whole
    caplog.clear()
    assert_holds(again(), held)
    assert caplog.text == ""


@pytest.mark.parametrize("name", [*FILES, "digests.json"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"train_images.npy": "x"}'])
def test_an_empty_missing_or_foreign_file_blocks_nothing(load, cache, name, content):
    again, held = load
    file = only(cache) / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert_holds(again(), held)
    assert not again().train.images.flags.writeable, "the cache is written again and mapped"


def test_a_cache_of_an_older_version_is_not_believed(load, cache, caplog):
    """It has no digests, and may hold other values."""
    again, held = load
    (only(cache) / "digests.json").unlink()
    np.save(only(cache) / "train_labels.npy", np.zeros(50, np.int32))
    assert_holds(again(), held)
    assert "another version" in caplog.text
    assert_holds(again(), held)


def test_files_and_folders_are_on_the_disk_before_the_name_is(planted, cache, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(opened):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{opened}")))
        fsync(opened)

    def record_replace(old, new):
        done.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    arrays.load("planted", str(planted[0]))
    before, after = done[: done.index("replace")], done[done.index("replace") + 1 :]
    assert before[:-1] == [*FILES, "digests.json"]
    assert before[-1].startswith(only(cache).name + "."), "the folder itself"
    assert after == ["data"]


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_what_a_killed_run_left_is_removed_and_what_a_live_one_writes_is_not(load, cache):
    again, held = load
    name = only(cache).name
    code = f"""if True:
        import pathlib, time
        from rethinking.data import cache
        with cache._unfinished(pathlib.Path({str(cache / name)!r})) as folder:
            (folder / "train_images.npy").write_bytes(bytes(1000))
            time.sleep(600)
    """
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: list(cache.glob("*.*/train_images.npy")))
        assert_holds(again(), held)
        assert len(list(cache.iterdir())) == 2, "another process is still writing it"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert_holds(again(), held)
    assert [path.name for path in cache.iterdir()] == [name]


def test_only_unfinished_caches_are_removed(load, cache):
    """Also those of an older version, which locked nothing."""
    again, _ = load
    for name in ("planted-0123456789abcdef.x1_y2z3w", "notes.txt", "planted-1.0.0", "a.12345678"):
        (cache / name).mkdir()
    (cache / "other-0123456789abcdef.abcdefgh").write_text("a file")
    again()
    left = {path.name for path in cache.iterdir()} - {"other-0123456789abcdef.abcdefgh"}
    assert len(left) == 4 and {"notes.txt", "planted-1.0.0", "a.12345678"} < left


def test_without_locks_caches_are_written_and_nothing_is_removed(planted, cache, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    cache.mkdir(parents=True)
    (cache / "planted-0123456789abcdef.x1_y2z3w").mkdir()
    for _ in range(2):
        dataset = arrays.load("planted", str(planted[0]))
    assert_holds(dataset, planted[1])
    assert not dataset.train.images.flags.writeable and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_is_one_line_and_the_run_goes_on(
    planted, cache, monkeypatch, caplog, code, damaged
):
    root, held = planted
    if damaged:
        arrays.load("planted", str(root))
        (only(cache) / "test_labels.npy").write_bytes(b"")
        caplog.clear()

    def fail(opened):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    assert_holds(arrays.load("planted", str(root)), held)
    (line,) = [record for record in caplog.records if "cannot be kept" in record.getMessage()]
    assert "\n" not in line.getMessage()
    if code == errno.ENOSPC:
        assert f"no space is left on the disk {mount_of(cache)}," in line.getMessage()
    assert not list(cache.glob("*.*")), "what was written is removed"


def mount_of(path):
    while not os.path.ismount(path):
        path = path.parent
    return path


def test_a_cache_that_the_system_cannot_read_is_not_called_damaged(
    load, cache, monkeypatch, caplog
):
    again, held = load

    def fail(file):
        raise OSError(errno.EIO, "Input/output error", str(file))

    monkeypatch.setattr(module, "_digest", fail)
    assert_holds(again(), held)
    assert "train_images.npy cannot be read: Input/output error" in caplog.text
    assert "damaged" not in caplog.text
