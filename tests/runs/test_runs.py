"""The run directory: files written whole, one writer, one config, the revision of the code."""

import errno
import json
import math
import multiprocessing
import pathlib
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
from etils.epath import gpath
from fsspec.implementations import memory

from rethinking import experiments, runs
from rethinking.errors import InputError
from rethinking.settings import named


@pytest.fixture
def settings():
    return named(experiments.defaults("training"), "test", "row")


def test_metrics_survive_a_torn_last_line_and_are_cut_back_to_the_checkpoint(tmp_path, settings):
    with runs.open_run(tmp_path, settings, experiments.scientific) as run:
        for epoch in range(4):
            run.append(
                {"step": 10 * epoch, "epoch": epoch, "train_loss": math.nan if epoch == 3 else 1.0}
            )
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "train_')
    with runs.open_run(tmp_path, settings, experiments.scientific) as run:
        assert [line["epoch"] for line in run.metrics] == [0, 1, 2, 3]
        assert run.metrics[3]["train_loss"] is None  # JSON has no nan
        run.keep_metrics(10)
        run.append({"epoch": 2})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]


def test_config_is_written_whole_and_another_one_is_refused(tmp_path, settings):
    with runs.open_run(tmp_path, settings, experiments.scientific):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == settings.to_dict()
    settings.data.data_dir = "elsewhere"  # where the data lie does not make another experiment
    with runs.open_run(tmp_path, settings, experiments.scientific):
        pass
    settings.batch_size = 7
    with (
        pytest.raises(InputError, match="batch_size: 128 there, 7 now"),
        runs.open_run(tmp_path, settings, experiments.scientific),
    ):
        pass


def test_foreign_and_unwritable_folders_are_refused(tmp_path, settings):
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(InputError, match="neither empty nor a run directory"),
        runs.open_run(tmp_path, settings, experiments.scientific),
    ):
        pass
    assert not (tmp_path / "config.json").exists()
    below_a_file = tmp_path / "thesis.tex" / "run"
    with (
        pytest.raises(InputError, match="cannot be written"),
        runs.open_run(below_a_file, settings, experiments.scientific),
    ):
        pass


def _hold(path, settings, held, release):
    with runs.open_run(path, settings, experiments.scientific):
        held.set()
        release.wait(30)


def test_a_second_process_is_refused_and_the_lock_ends_with_its_holder(tmp_path, settings):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, settings, held, release))
    process.start()
    assert held.wait(30)
    with (
        pytest.raises(InputError, match="in use by another process"),
        runs.open_run(tmp_path, settings, experiments.scientific),
    ):
        pass
    process.kill()
    process.join()
    with runs.open_run(tmp_path, settings, experiments.scientific):
        pass


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path, settings, monkeypatch, caplog
):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with runs.open_run(tmp_path, settings, experiments.scientific):
        assert "without locks (Function not implemented)" in caplog.text


def test_result_is_written_once_whole(tmp_path, settings):
    assert runs.read_result(tmp_path) is None
    with runs.open_run(tmp_path, settings, experiments.scientific) as run:
        shifts = {"noise=1": {"loss": math.nan, "accuracy": 0.5}}
        result = run.finish(
            {"row": "test:row", "status": "complete", "seconds": math.inf, "shifts": shifts}
        )
        assert run.result == result == runs.read_result(tmp_path)
    assert result["seconds"] is None and result["shifts"]["noise=1"] == {
        "loss": None,
        "accuracy": 0.5,
    }
    assert "NaN" not in (tmp_path / "result.json").read_text()


@pytest.mark.parametrize("opens", [True, False])
def test_the_revision_is_that_of_the_code_when_the_run_began(tmp_path, opens):
    code, package = tmp_path / "code", pathlib.Path(runs.__file__).parents[1]
    shutil.copytree(package, code / "rethinking", ignore=shutil.ignore_patterns("__pycache__"))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm made"):
        subprocess.run(["git", *command.split()], cwd=code, check=True)
    script = f"""
        from rethinking import experiments, provenance, runs
        from rethinking.settings import named
        config = named(experiments.defaults("training"), "test", "row")
        if {opens}:
            with runs.open_run({str(tmp_path / "run")!r}, config, experiments.scientific):
                pass
        with open({str(code / "rethinking/runs/__init__.py")!r}, "a") as file:
            file.write("# changed")
        print(provenance.revision())
        """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=code, capture_output=True, text=True
    )
    assert said.stdout.strip().endswith("-dirty") == (not opens) and len(said.stdout) > 12, (
        said.stderr
    )


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_of_several_processes_one_writes_and_all_keep_the_same_metrics(tmp_path, settings):
    with runs.open_run(tmp_path, settings, experiments.scientific) as writer:
        writer.append({"step": 0})
        with runs.open_run(tmp_path, settings, experiments.scientific, writes=False) as reader:
            before = files(tmp_path)
            for step in (1, 2):
                reader.append({"step": step, "train_loss": math.inf})
            reader.keep_metrics(1)
            result = reader.finish({"status": "complete"})
            assert files(tmp_path) == before
            assert result == {"status": "complete"}
            assert reader.result is None
        writer.append({"step": 1, "train_loss": math.inf})
        assert reader.metrics == writer.metrics == [{"step": 0}, {"step": 1, "train_loss": None}]
        writer.finish(result)
        assert reader.result == result


def test_a_process_that_reads_waits_for_the_one_that_writes(tmp_path, settings, monkeypatch):
    def write():
        with runs.open_run(tmp_path / "late", settings, experiments.scientific):
            pass

    threading.Timer(1.0, write).start()
    with runs.open_run(tmp_path / "late", settings, experiments.scientific, writes=False) as reader:
        assert reader.metrics == []
    settings.batch_size = 7
    with (
        pytest.raises(InputError, match="7 now"),
        runs.open_run(tmp_path / "late", settings, experiments.scientific, writes=False),
    ):
        pass
    monkeypatch.setattr(runs, "WAIT_SECONDS", 0.1)
    with (
        pytest.raises(
            InputError, match=r"process 0 writes .*config.json, but this process cannot see it"
        ),
        runs.open_run(tmp_path / "elsewhere", settings, experiments.scientific, writes=False),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_that_gets_more_epochs_is_finished_until_its_first_line(tmp_path, settings):
    with runs.open_run(tmp_path, settings, experiments.scientific) as run:
        run.append({"step": 1})
        result = run.finish(run.sealed({"status": "complete", "steps": 1, "epochs": 1}))
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    longer = settings.copy_and_resolve_references()
    longer.max_epochs += 1

    def open_longer(writes):
        return runs.open_run(
            tmp_path, longer, experiments.scientific, writes, experiments.lengthens
        )

    def open_shorter():
        return runs.open_run(tmp_path, settings, experiments.scientific)

    with open_longer(True) as writer, open_longer(False) as reader:
        assert writer.result is reader.result is None
        assert runs.read_result(tmp_path) == result
    with open_shorter() as run:
        assert run.result == result
    with open_longer(True) as writer, open_longer(False) as reader:
        for run in (writer, reader):
            run.append({"step": 2})
            assert run.result is None
        assert reader.metrics == writer.metrics == [{"step": 1}, {"step": 2}]
    assert runs.read_result(tmp_path) is None
    with pytest.raises(InputError, match="max_epochs: 101 there, 100 now"), open_shorter():
        pass


class Bucket(memory.MemoryFileSystem):
    """gs:// in memory. As in Google's, a file appears when it is closed and cannot be extended."""

    protocol = ("gs", "gcs")
    store, pseudo_dirs, cachable = {}, [""], False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))

    def open(self, path, mode="rb", **kwargs):
        assert "a" not in mode
        return super().open(path, mode, **kwargs)

    def mv(self, *_, **__):
        raise NotImplementedError

    rename = mv


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(
        gpath, "_is_tf_installed", lambda: False
    )  # with TensorFlow, epath reads buckets through it
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    monkeypatch.setattr(gpath._PREFIX_TO_BACKEND["gs"], "_get_filesystem", lambda name: Bucket())
    return Bucket.store


def test_a_run_directory_in_a_bucket(bucket, settings):
    workdir = "gs://bucket/runs/mine"
    with runs.open_run(workdir, settings, experiments.scientific) as run:
        for step in range(3):
            run.append({"step": step})
        with runs.open_run(workdir, settings, experiments.scientific, writes=False) as reader:
            assert reader.metrics == run.metrics
            reader.append({"step": 3})
    with runs.open_run(workdir, settings, experiments.scientific) as run:
        assert [line["step"] for line in run.metrics] == [0, 1, 2]
        run.keep_metrics(1)
        assert run.result is None
        run.finish({"status": "complete"})
        assert run.result == runs.read_result(workdir) == {"status": "complete"}
    assert sorted(bucket) == [
        f"/bucket/runs/mine/{name}" for name in ("config.json", "metrics.jsonl", "result.json")
    ]
    assert bucket["/bucket/runs/mine/metrics.jsonl"].getvalue() == b'{"step": 0}\n{"step": 1}\n'
    settings.batch_size = 7
    with (
        pytest.raises(InputError, match="gs://bucket/runs/mine holds a run of another"),
        runs.open_run(workdir, settings, experiments.scientific),
    ):
        pass
    with (
        pytest.raises(InputError, match="neither empty nor a run directory"),
        runs.open_run("gs://bucket", settings, experiments.scientific),
    ):
        pass


def test_a_bucket_without_the_package_that_reads_it_is_refused(settings, monkeypatch):
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    gpath._PREFIX_TO_BACKEND["gs"]._get_filesystem.cache_clear()
    with (
        pytest.raises(InputError, match=r"gcsfs.*'\.\[gcs\]'"),
        runs.open_run("gs://bucket/run", settings, experiments.scientific),
    ):
        pass


def test_the_command_line_is_read_without_jax():
    subprocess.run(
        [sys.executable, "-c", "import sys, rethinking.main; assert 'jax' not in sys.modules"],
        check=True,
    )
