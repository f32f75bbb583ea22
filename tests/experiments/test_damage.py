"""A bit that flips in any file of a run directory changes no result silently."""

import itertools
import json
import math
import shutil
import time
import types

import jax
import numpy as np
import pytest
from etils import epath

from rethinking import experiments, runs
from rethinking.errors import InputError
from rethinking.experiments.checkpoint import Checkpoints
from rethinking.experiments.evaluations import Measured
from rethinking.experiments.loop import Loop
from rethinking.experiments.resident import ResidentTrainer
from tests.experiments.trained import lines, quickstart, saved_steps, untimed

# TensorStore's own warning, about reads that fail. It may come in a later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONFIG = {
    "checkpoint_seconds": 0,
    "data__num_train": 96,
    "data__num_test": 40,
    "model__name": "tests.experiments.networks:Changing",
    "max_epochs": 4,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four epochs, with checkpoints after the third and the fourth."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    experiments.run(quickstart(**CONFIG), workdir)
    return workdir


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the run that seems to have been killed just before it wrote result.json."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path / "run"


def flip(file, position, bit):
    contents = bytearray(file.read_bytes())
    contents[position] ^= 1 << bit
    file.write_bytes(contents)


def places(file, count):
    """`count` places in a file, spread over it: (byte, bit)."""
    size = file.stat().st_size
    chosen = np.random.default_rng(size).integers(size, size=min(count, size))
    return [(int(byte), int(byte) % 8) for byte in chosen]


def restored(workdir, state):
    """The step, the values and the rest of the checkpoint that a run would continue from."""
    checkpoints = Checkpoints(epath.Path(workdir))
    try:
        saved = checkpoints.restore(state)
    finally:
        checkpoints.close()
    return saved._replace(state=jax.tree.map(np.asarray, saved.state))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    return one[2:] == other[2:]


@pytest.fixture(scope="module")
def trainer():
    return ResidentTrainer(quickstart(**CONFIG))


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_harmless_or_noticed(
    unfinished, trainer, caplog
):
    older, newest = saved_steps(unfinished)
    expected = {}
    expected[newest] = restored(unfinished, trainer.initial)
    shutil.copytree(unfinished, unfinished.with_name("older"))
    shutil.rmtree(unfinished.with_name("older") / f"checkpoints/{newest}")
    expected[older] = restored(unfinished.with_name("older"), trainer.initial)
    passed_over = 0
    for file in sorted((unfinished / "checkpoints" / str(newest)).rglob("*")):
        for place in places(file, 2) if file.is_file() else ():
            work = unfinished.with_name("work")
            shutil.copytree(unfinished, work)
            flip(work / file.relative_to(unfinished), *place)
            caplog.clear()
            found = restored(work, trainer.initial)
            assert same(found, expected[found.step]), (file, place)
            if found.step == older:
                passed_over += 1
                assert f"checkpoints/{newest} is unreadable" in caplog.text
            shutil.rmtree(work)
    assert passed_over >= 6


def continued(workdir, trainer):
    """The step from which a run continues, and the lines that it keeps."""
    config = experiments.with_source(quickstart(**CONFIG))
    with runs.open_run(workdir, config, experiments.scientific) as directory:
        checkpoints = Checkpoints(directory.path)
        try:
            loop = Loop(config, trainer, directory, checkpoints, 0.0, math.inf)
        finally:
            checkpoints.close()
        return loop.step, directory.metrics


def test_a_flipped_bit_in_any_file_of_an_unfinished_run_is_harmless_or_named(
    unfinished, trainer, caplog
):
    before = lines(unfinished)
    steps = saved_steps(unfinished)
    others = [path for path in unfinished.iterdir() if path.is_file() and path.stat().st_size]
    assert {"config.json", "metrics.jsonl"} < {path.name for path in others}
    refused = 0
    for file in sorted(others):
        for place in places(file, 8):
            work = unfinished.with_name("work")
            shutil.copytree(unfinished, work)
            flip(work / file.name, *place)
            caplog.clear()
            try:
                step, kept = continued(work, trainer)
            except InputError as error:
                refused += 1
                assert str(work / file.name) in str(error) or "another config" in str(error)
            else:
                assert step in steps and kept == [line for line in before if line["step"] <= step]
                assert step == steps[-1] or str(work / file.name) in caplog.text
            shutil.rmtree(work)
    assert refused >= 6


def test_a_flipped_bit_in_any_file_of_a_finished_run_is_harmless_or_named(
    finished, tmp_path, caplog
):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    result, before = untimed(runs.read_result(work)), list(map(untimed, lines(work)))
    noticed = 0
    for file in sorted(path for path in work.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for place in places(file, 40 if file.suffix.startswith(".json") else 1) if whole else ():
            flip(file, *place)
            caplog.clear()
            try:
                assert untimed(experiments.run(quickstart(**CONFIG), work)) == result
            except InputError as error:
                noticed += 1
                assert str(file) in str(error) or "another config" in str(error)
            if file.name == "metrics.jsonl" and str(file) not in caplog.text:
                assert list(map(untimed, lines(work))) == before
            file.write_bytes(whole)
    assert noticed >= 40


@pytest.fixture
def old(unfinished, trainer):
    """The unfinished run, with checkpoints as they were before digests."""
    for step in saved_steps(unfinished):
        folder = unfinished / "checkpoints" / str(step) / "progress" / "metadata"
        folder.write_text(json.dumps({"loss_sum": json.loads(folder.read_text())["loss_sum"]}))
    return unfinished


def test_checkpoints_from_before_digests_are_continued(old, trainer):
    step, kept = continued(old, trainer)
    assert step == saved_steps(old)[-1]
    assert kept == lines(old) and len(kept) == 5


def without(texts, number):
    return texts[:number] + texts[number + 1 :]


LOST = {
    "all lines": lambda texts: [],
    "the first line": lambda texts: without(texts, 0),
    "a line in the middle": lambda texts: without(texts, 2),
    "the last two lines": lambda texts: texts[:-2],
    "half of a line": lambda texts: [*texts[:2], texts[2][:40], *texts[3:]],
    "the order": lambda texts: [texts[0], texts[2], texts[1], *texts[3:]],
    "a number": lambda texts: [*texts[:1], texts[1].replace('"train_accuracy": 0', '"x": 0')],
}


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("lost", LOST)
def test_a_run_whose_metrics_are_lost_is_refused(lost, is_old, request, unfinished, trainer):
    if is_old:
        request.getfixturevalue("old")
    file = unfinished / "metrics.jsonl"
    changed = LOST[lost](file.read_text().splitlines())
    file.write_text("".join(text + "\n" for text in changed))
    steps = saved_steps(unfinished)
    with pytest.raises(InputError, match=r"metrics.jsonl is damaged: .*--workdir"):
        continued(unfinished, trainer)
    assert saved_steps(unfinished) == steps and len(file.read_text().splitlines()) == len(changed)


@pytest.mark.parametrize("is_old", [True, False])
def test_a_run_continues_from_the_checkpoint_that_its_metrics_cover(
    is_old, request, finished, unfinished, trainer, caplog
):
    if is_old:
        request.getfixturevalue("old")
    file = unfinished / "metrics.jsonl"
    file.write_text("".join(text + "\n" for text in file.read_text().splitlines()[:-1]))
    newest = saved_steps(unfinished)[-1]
    experiments.run(quickstart(**CONFIG), unfinished)
    assert f"checkpoints/{newest} lacks evaluations" in caplog.text
    assert untimed(runs.read_result(unfinished)) == untimed(runs.read_result(finished))
    assert list(map(untimed, lines(unfinished))) == list(map(untimed, lines(finished)))
    assert len(list((unfinished / "checkpoints.unreadable").iterdir())) == 1


def test_a_checkpoint_under_another_step_is_passed_over(unfinished, trainer, caplog):
    older, newest = saved_steps(unfinished)
    shutil.rmtree(unfinished / f"checkpoints/{newest}")
    shutil.copytree(unfinished / f"checkpoints/{older}", unfinished / f"checkpoints/{newest}")
    assert restored(unfinished, trainer.initial).step == older
    assert f"checkpoints/{newest} is unreadable" in caplog.text


def test_the_time_spent_until_the_last_checkpoint_counts(unfinished, trainer):
    config = experiments.with_source(quickstart(**CONFIG))
    with runs.open_run(unfinished, config, experiments.scientific) as directory:
        checkpoints = Checkpoints(directory.path)
        loop = Loop(config, trainer, directory, checkpoints, 1000.0, math.inf)
        saved = restored(unfinished, trainer.initial)
        checkpoints.close()
    assert loop.start == 1000.0 - saved.seconds
    assert lines(unfinished)[-1]["seconds"] <= saved.seconds < lines(unfinished)[-1]["seconds"] + 60


def test_seconds_and_the_deadline_do_not_follow_a_clock_that_jumps(tmp_path, monkeypatch):
    jumps = itertools.cycle([0.0, 2e9, 1e9, -5.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    began = time.monotonic()
    result = experiments.run(quickstart(**CONFIG), tmp_path, began + 1000)
    assert result["status"] == "complete"
    assert 0 < result["seconds"] < time.monotonic() - began
    assert result["examples_per_second"] > 0


def test_a_checkpoint_is_replaced_when_its_last_evaluation_is_there(unfinished, trainer):
    """A run that stops in an evaluation saves before it. The next run evaluates and stops."""
    checkpoints = Checkpoints(epath.Path(unfinished))
    saved = checkpoints.restore(trainer.initial)
    checkpoints.save(saved)
    measured = lines(unfinished)
    for count in (3, 5):
        checkpoints.save(saved._replace(measured=Measured.of(measured[:count])))
    checkpoints.close()
    found = restored(unfinished, trainer.initial)
    assert found.measured == Measured.of(measured)
    assert same(found, saved._replace(state=jax.tree.map(np.asarray, saved.state)))


def test_a_full_disk_ends_a_run_that_the_same_command_continues(
    finished, tmp_path, monkeypatch, capfd
):
    with monkeypatch.context() as patch:
        full = types.SimpleNamespace(free=1000)
        patch.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(InputError, match=r"^the disk of .*checkpoints is full\. "):
            experiments.run(quickstart(**CONFIG), tmp_path)
    assert "Traceback" not in capfd.readouterr().err
    assert len(lines(tmp_path)) == 1  # before the first epoch
    experiments.run(quickstart(**CONFIG), tmp_path)
    assert untimed(runs.read_result(tmp_path)) == untimed(runs.read_result(finished))


def test_a_folder_removed_under_a_running_run_stays_removed(tmp_path, monkeypatch):
    count = Loop._count

    def remove_and_count(*arguments):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        count(*arguments)

    monkeypatch.setattr(Loop, "_count", remove_and_count)
    with pytest.raises(InputError, match="run was removed or replaced"):
        experiments.run(quickstart(**CONFIG), tmp_path / "run")
    assert not (tmp_path / "run").exists()
