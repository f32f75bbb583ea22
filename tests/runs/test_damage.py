"""Damaged files of a run directory, failed starts, a full disk and a removed folder."""

import errno
import json
import math
import os
import shutil
import threading

import pytest

from launch import jobs, workers
from rethinking import experiments, runs
from rethinking.errors import InputError
from rethinking.runs import json_files
from rethinking.runs.disk import explain_disk_errors
from rethinking.settings import named

RESULT = {
    "experiment": "test",
    "row": "test:row",
    "seed": 0,
    "status": "complete",
    "seconds": 12.5,
    "steps": 130,
    "epochs": 10,
    "fit_step": None,
    "train_accuracy": 1.0,
    "test_accuracy": 0.75,
    "train_loss": None,
    "curve": [{"epoch": 0, "max_change": 0.25}],
}
LINES = [
    {
        "step": 13 * epoch,
        "epoch": epoch,
        "train_loss": None,
        "train_accuracy": epoch / 10,
        "test_accuracy": 0.75,
        "seconds": 1.25 * epoch,
    }
    for epoch in range(11)
]


@pytest.fixture
def settings():
    return named(experiments.defaults("training"), "test", "row")


def opened(workdir, settings):
    return runs.open_run(workdir, settings, experiments.scientific)


def changed(**fields):
    return json.dumps(RESULT | fields)


DAMAGED = {
    "empty": "",
    "cut short": json.dumps(RESULT)[:50],
    "object": "{}",
    "list": "[]",
    "text": '"complete"',
    "null": "null",
    "deep": "[" * 100_000,
    "status": changed(status="done"),
    "status list": changed(status=["complete"]),
    "text for a number": changed(test_accuracy="0.75"),
    "endless number": changed(test_accuracy=10**400),
    "true for a number": changed(train_accuracy=True),
    "number for a text": changed(row=3),
    "fraction for a count": changed(steps=1.5),
    "null for a count": changed(seed=None),
    "object for a list": changed(curve={}),
    "without its digest": changed(metrics_sha256="0" * 64),
    "another digest": changed(sha256="0" * 64),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_named_and_not_finished(text, tmp_path, settings):
    with opened(tmp_path, settings):
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(runs.DamagedFile, match=r"result.json is damaged: .*Remove this file"):
        runs.read_result(tmp_path)
    with pytest.raises(InputError, match=r"result.json is damaged"):
        experiments.run(settings, tmp_path)
    assert (tmp_path / "result.json").read_text() == text


def test_a_result_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "result.json").write_bytes(json.dumps(RESULT).encode("utf-16"))
    with pytest.raises(runs.DamagedFile, match=r"result.json is damaged"):
        runs.read_result(tmp_path)


def write_run(workdir, settings):
    with opened(workdir, settings) as directory:
        for line in LINES:
            directory.append(line)
        return directory.finish(directory.sealed(RESULT))


def test_digests_notice_changes_in_a_result_and_in_its_metrics(tmp_path, settings):
    result = write_run(tmp_path, settings)
    assert runs.read_result(tmp_path) == result == result | RESULT
    assert runs.check_metrics(tmp_path, result) is None
    file = tmp_path / "result.json"
    file.write_text(file.read_text().replace("0.75", "0.74"))
    with pytest.raises(runs.DamagedFile, match="do not match"):
        runs.read_result(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    text = metrics.read_text()
    for damaged in (
        text.replace('"epoch": 5', '"epoch": 6'),
        text.replace('"train_loss": null', '"train_loss": 1', 1),
        text.replace('"seconds": 12.5', '"seconds": 13.5'),
        text.partition("\n")[2],
        text[:-2],
        "",
    ):
        metrics.write_text(damaged)
        assert str(metrics) in runs.check_metrics(tmp_path, result)
    metrics.unlink()
    assert str(metrics) in runs.check_metrics(tmp_path, result)


def test_equal_runs_have_equal_digests(tmp_path, settings):
    slower = [line | {"seconds": 9 * line["seconds"]} for line in LINES]
    assert json_files.digest_of_lines(slower) == json_files.digest_of_lines(LINES)
    assert (
        json_files.seal(RESULT | {"seconds": 99.0, "solve_seconds": 1})["sha256"]
        == (json_files.seal(RESULT)["sha256"])
    )
    assert (
        json_files.seal(RESULT | {"test_accuracy": math.nan})["sha256"]
        != (json_files.seal(RESULT)["sha256"])
    )


@pytest.mark.parametrize(
    "texts, reason",
    [
        (lambda texts: texts, None),
        (lambda texts: texts[:-1], "does not end where the run ended: step is 117 there and 130"),
        (lambda texts: [*texts[:-1], texts[-1].replace("0.75", "0.5")], "test_accuracy"),
        (lambda texts: [*texts[:3], "{", *texts[4:]], "is damaged in line 4"),
        (lambda texts: [*texts[:3], "[]", *texts[4:]], "is damaged in line 4"),
        (lambda texts: [], "empty or missing"),
    ],
)
def test_a_result_from_before_digests_is_compared_with_the_last_line(texts, reason, tmp_path):
    written = texts([json.dumps(line) for line in LINES])
    (tmp_path / "metrics.jsonl").write_text("".join(text + "\n" for text in written))
    result = {name: value for name, value in RESULT.items() if name != "sha256"}
    found = runs.check_metrics(tmp_path, result)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", "7", "[" * 100_000),
        *('{"row": 3, "seed": 0}', '{"row": "test:row", "seed": "0"}'),
        '{"row": "test:row", "seed": 0, "kind": ["training"]}',
    ],
    ids=range(9),
)
def test_a_damaged_config_is_named(text, tmp_path, settings):
    with opened(tmp_path, settings) as directory:
        directory.append(LINES[0])
    (tmp_path / "config.json").write_text(text)
    with (
        pytest.raises(InputError, match=r"config.json is damaged: .*--workdir"),
        opened(tmp_path, settings),
    ):
        pass


@pytest.mark.parametrize("file", ["result.json", "config.json"])
def test_a_damaged_run_does_not_stop_a_sweep(file, tmp_path):
    def plan():
        return jobs.plan("configs/quickstart.py", tmp_path, rows="true_labels|gaussian")

    first = plan()[0]
    with opened(first.workdir, first.config) as directory:
        directory.append(LINES[0])
        directory.finish({"status": "complete"})
    assert [job.is_left for job in plan()] == [False, True]
    (first.workdir / file).write_text("{}")
    planned = plan()
    assert [job.is_left for job in planned] == [True, True]
    ended = workers.run_job(planned[0], math.inf)
    assert ended.startswith("failed") and str(first.workdir / file) in ended


def begin(workdir):
    """Writes what a run has written before its first result."""
    (workdir / "events.out.tfevents.1.host").write_text("x")
    (workdir / "metrics.jsonl").write_text("")
    for name in ("0/state", "32.orbax-checkpoint-tmp/state"):
        (workdir / "checkpoints" / name).mkdir(parents=True)


@pytest.mark.parametrize("error", [InputError("no"), RuntimeError("no"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_result_leaves_its_folder_usable(
    error, tmp_path, settings
):
    with pytest.raises(type(error)), opened(tmp_path, settings):
        begin(tmp_path)
        raise error
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
    settings.batch_size = 7
    with opened(tmp_path, settings):
        pass


def test_a_run_that_is_killed_before_its_first_result_leaves_its_folder_usable(tmp_path, settings):
    other = settings.copy_and_resolve_references()
    other.batch_size = 7
    killed = {}
    with opened(tmp_path / "run", settings) as directory:
        begin(tmp_path / "run")
        killed["before"] = shutil.copytree(tmp_path / "run", tmp_path / "before")
        directory.append(LINES[0])
        killed["after"] = shutil.copytree(tmp_path / "run", tmp_path / "after")
    with opened(killed["before"], other) as directory:
        assert {path.name for path in killed["before"].iterdir()} == {".lock", "config.json"}
        assert directory.metrics == []
    assert json.loads((killed["before"] / "config.json").read_text())["batch_size"] == 7
    with (
        pytest.raises(InputError, match="batch_size: 128 there, 7 now"),
        opened(killed["after"], other),
    ):
        pass


def test_other_processes_wait_until_the_config_of_a_killed_run_is_replaced(tmp_path, settings):
    other = settings.copy_and_resolve_references()
    other.batch_size = 7
    with opened(tmp_path / "run", settings):
        shutil.copytree(tmp_path / "run", tmp_path / "killed")

    def write():
        with opened(tmp_path / "killed", other):
            pass

    timer = threading.Timer(0.3, write)
    timer.start()
    with runs.open_run(tmp_path / "killed", other, experiments.scientific, writes=False) as reader:
        assert reader.metrics == []
    timer.join()


def test_a_run_that_fails_after_its_first_result_keeps_it(tmp_path, settings):
    with pytest.raises(RuntimeError), opened(tmp_path, settings) as directory:
        directory.append(LINES[0])
        raise RuntimeError
    with opened(tmp_path, settings) as directory:
        assert directory.metrics == LINES[:1]


@pytest.mark.parametrize("has_locks", [True, False])
def test_litter_of_a_kill_is_removed_by_the_one_who_has_the_lock(
    has_locks, tmp_path, settings, monkeypatch
):
    write_run(tmp_path, settings)
    litter = ["checkpoints/44.orbax-checkpoint-tmp", "checkpoints/8.orbax-checkpoint-tmp-17"]
    for name in [*litter, "checkpoints/88"]:
        (tmp_path / name / "state").mkdir(parents=True)
    litter.append("result.json.partial")
    (tmp_path / litter[-1]).write_text("{")
    if not has_locks:

        def refuse(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr("fcntl.flock", refuse)
    assert experiments.run(settings, tmp_path)["status"] == "complete"
    assert [(tmp_path / name).exists() for name in litter] == [not has_locks] * 3
    assert (tmp_path / "checkpoints/88/state").exists()


def raised_from(cause):
    error = RuntimeError("saving failed")
    error.__cause__ = cause
    return error


TENSORSTORE = ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [28]")


FULL, FAILS = "the disk of /scratch/run is full. ", "the disk of /scratch/run fails: "


@pytest.mark.parametrize(
    "error, beginning",
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), "the disk of /cache/x is "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
        (TENSORSTORE, FULL),
        (raised_from(TENSORSTORE), FULL),
        (OSError(errno.EIO, "Input/output error"), FAILS),
        (OSError(errno.EACCES, "Permission denied", "/scratch/run/x"), "/scratch/run/x cannot be "),
        (OSError(errno.EACCES, "Permission denied", "/elsewhere/x"), None),
        (OSError(errno.ECONNREFUSED, "Connection refused"), None),
        (InputError("No space left on device: /cache"), None),
    ],
)
def test_an_error_of_the_disk_is_named_in_one_line(error, beginning):
    expected = InputError if beginning else type(error)
    with pytest.raises(expected) as caught, explain_disk_errors("/scratch/run"):
        raise error
    if beginning is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(beginning)
        assert "\n" not in str(caught.value) and "same command continues" in str(caught.value)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_is_removed_during_the_run_ends_it(is_replaced, tmp_path, settings):
    workdir = tmp_path / "run"
    with (
        pytest.raises(InputError, match="was removed or replaced"),
        opened(workdir, settings) as directory,
    ):
        directory.append(LINES[0])
        shutil.rmtree(workdir)
        if is_replaced:
            with opened(workdir, settings):
                pass
        for write in (lambda: directory.append(LINES[1]), directory.require_there):
            with pytest.raises(InputError, match="was removed or replaced"):
                write()
        directory.finish(RESULT)
    assert os.path.exists(workdir) == is_replaced
    assert not (workdir / "result.json").exists()
