"""The time for which devices wait for images, against sources and steps of known speeds."""

import threading
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from rethinking import cli, distributed, experiments, provenance
from rethinking.data import stream
from rethinking.experiments.progress import _waited
from rethinking.experiments.waiting import Waiting
from tests.experiments.trained import STREAMED_MLP, lines


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (20.0, 40.0, 40.0),  # the batch comes 40 seconds after the step has ended
        (0.0, 60.0, 60.0),
        (60.0, None, 0.0),  # it comes while the devices still compute
    ],
)
def test_only_the_time_after_a_step_counts(monkeypatch, before, after, expected):
    """By a clock of its own, in which a batch takes 60 seconds."""
    clock = types.SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("rethinking.experiments.waiting.time", clock)
    ended = threading.Event()
    monkeypatch.setattr("jax.block_until_ready", lambda loss: ended.wait(10))
    waiting = Waiting()

    def source():
        clock.now += 5
        yield "the first, before any step"
        clock.now += before
        if after is not None:
            ended.set()
            waiting._ended.result()
            clock.now += after
        yield "the second"

    batches = waiting.timed(source())
    next(batches)
    assert waiting.take() == 5
    waiting.follow(jnp.float32(0))
    clock.now += 7  # the loop does something else
    next(batches)
    assert waiting.take() == expected
    assert waiting.take() == 0 and list(batches) == []
    ended.set()
    waiting.close()


def test_a_slow_source_shows_in_the_lines_and_on_the_terminal(
    tmp_path, tfds_dir, monkeypatch, capsys
):
    tfds_dir("imagenette_subset")
    pause, fast = 0.05, stream.train_batches

    def slow(*arguments):
        for batch in fast(*arguments):
            time.sleep(pause)
            yield batch

    monkeypatch.setattr(stream, "train_batches", slow)
    monkeypatch.setattr("rethinking.experiments.progress.SECONDS_BETWEEN_LINES", 0)
    settings = [*STREAMED_MLP, "--config.num_devices=1", "--config.max_epochs=2"]
    settings += ["--config.data.num_train=40", "--config.data.num_test=8"]
    experiments.run(cli.parse_config(settings), tmp_path)
    said = capsys.readouterr().err
    first, *epochs = lines(tmp_path)
    assert "input_wait_seconds" not in first and "epoch_seconds" not in first
    # 40 images are 2.5 batches. The first epoch also waits for two batches that are made ahead.
    for line, num_batches, num_waits in zip(epochs, (3, 2), (5, 2), strict=True):
        waited = line["input_wait_seconds"]
        assert 0.6 * num_waits * pause < waited <= line["epoch_seconds"]
        assert line["epoch_seconds"] == pytest.approx(
            num_batches * 16 / line["examples_per_second"], rel=0.3
        )
        assert f", {waited:.1f} of {line['epoch_seconds']:.1f} s waiting for images" in said


def test_where_images_are_on_the_devices_nothing_is_said():
    assert _waited({"examples_per_second": 1.0}) == ""


def test_processes_share_the_cores_of_their_host(monkeypatch):
    """Of four processes, the two on this host may use the same eight cores."""
    monkeypatch.setattr(provenance, "granted_cores", lambda: 8)
    assert distributed.share_of_cores() == 8
    monkeypatch.setattr("jax.process_count", lambda: 4)

    def process_allgather(mine):
        return np.array([mine, mine + 1, mine, mine + 2])

    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", process_allgather)
    assert distributed.share_of_cores() == 4
    assert distributed.largest(2.5) == 4.5


@pytest.mark.parametrize(
    "limit, expected",
    [("max 100000\n", 64), ("250000 100000\n", 3), ("9900000 100000\n", 64), (None, 64)],
)
def test_a_container_s_limit_of_cores_counts(tmp_path, monkeypatch, limit, expected):
    if limit:
        (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(provenance, "_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(provenance, "usable_cores", lambda: 64)
    assert provenance.granted_cores() == expected
