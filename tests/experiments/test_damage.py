"""A bit that flips in any file of a run directory changes no result silently."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from rethinking import experiments, runs
from rethinking.errors import InputError
from rethinking.experiments.checkpoint import Checkpoints
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
        for place in places(file, 3) if file.is_file() else ():
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
    assert passed_over >= 10


def continued(workdir, trainer):
    """The step from which a run continues, and the lines that it keeps."""
    config = quickstart(**CONFIG)
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
        for place in places(file, 12):
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
    assert refused >= 10


def test_a_flipped_bit_in_any_file_of_a_finished_run_is_harmless_or_named(
    finished, tmp_path, caplog
):
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    result, before = untimed(runs.read_result(work)), list(map(untimed, lines(work)))
    noticed = 0
    for file in ("config.json", "metrics.jsonl", "result.json"):
        whole = (work / file).read_bytes()
        for place in places(work / file, 60):
            flip(work / file, *place)
            caplog.clear()
            try:
                assert untimed(experiments.run(quickstart(**CONFIG), work)) == result
            except InputError as error:
                noticed += 1
                assert str(work / file) in str(error) or "another config" in str(error)
            if file == "metrics.jsonl" and str(work / file) not in caplog.text:
                assert list(map(untimed, lines(work))) == before
            (work / file).write_bytes(whole)
    assert noticed >= 60


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
