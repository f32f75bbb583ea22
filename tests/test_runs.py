"""The run directory: atomic, locked, and its metrics cut back to a checkpoint."""

import json
import math
import multiprocessing

import pytest

from rethinking import config, runs
from rethinking.config import ConfigError


@pytest.fixture
def settings():
    return config.named(config.training(), "test", "row")


def test_metrics_survive_a_torn_last_line_and_are_cut_back_to_the_checkpoint(tmp_path, settings):
    with runs.open_run(tmp_path, settings) as run:
        for epoch in range(4):
            run.append({"step": 10 * epoch, "epoch": epoch, "train_loss": math.nan if epoch == 3 else 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "train_')
    with runs.open_run(tmp_path, settings) as run:
        assert [line["epoch"] for line in run.metrics] == [0, 1, 2, 3]
        assert run.metrics[3]["train_loss"] is None  # JSON has no nan
        run.keep_metrics(10)
        run.append({"epoch": 2})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]


def test_config_is_written_whole_and_another_one_is_refused(tmp_path, settings):
    with runs.open_run(tmp_path, settings):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == settings.to_dict()
    settings.data.data_dir = "elsewhere"  # where the data lie does not make another experiment
    with runs.open_run(tmp_path, settings):
        pass
    settings.batch_size = 7
    with pytest.raises(ConfigError, match="batch_size: 128 there, 7 now"), runs.open_run(tmp_path, settings):
        pass


def test_foreign_and_unwritable_folders_are_refused(tmp_path, settings):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="neither empty nor a run directory"), runs.open_run(tmp_path, settings):
        pass
    assert not (tmp_path / "config.json").exists()
    below_a_file = tmp_path / "thesis.tex" / "run"
    with pytest.raises(ConfigError, match="cannot be written"), runs.open_run(below_a_file, settings):
        pass


def _hold(path, settings, held, release):
    with runs.open_run(path, settings):
        held.set()
        release.wait(30)


def test_a_second_process_is_refused_and_the_lock_ends_with_its_holder(tmp_path, settings):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, settings, held, release))
    process.start()
    assert held.wait(30)
    with pytest.raises(ConfigError, match="in use by another process"), runs.open_run(tmp_path, settings):
        pass
    process.kill()
    process.join()
    with runs.open_run(tmp_path, settings):
        pass


def test_result_is_written_once_whole(tmp_path, settings):
    assert runs.read_result(tmp_path) is None
    with runs.open_run(tmp_path, settings) as run:
        result = run.finish(runs.provenance(settings) | {"status": "complete", "seconds": math.inf})
        assert run.result == result == runs.read_result(tmp_path)
    assert result["seconds"] is None
    assert result["row"] == "test:row"
    assert {"experiment", "seed", "device", "num_devices", "jax", "revision", "config_digest"} <= result.keys()
