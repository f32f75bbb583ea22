"""The plan of a sweep on files of one's own, and runs of it that fail or are damaged."""

import json
import os

import pytest

from launch import jobs, workers
from rethinking import experiments, runs
from rethinking.data.description import Info
from rethinking.errors import InputError
from rethinking.experiments import data_set

QUICKSTART = "configs/quickstart.py"
# A config file that sets no names, or those of its template.
UNNAMED = """
from rethinking import experiments
ROWS = ("small", "large")
def get_config(row):
    config = experiments.defaults("training")
    config.model.name = "mlp_1x512" if row == "small" else "mlp_3x512"
    {names}
    return config
"""
FAST = ["--config.max_epochs=1", "--config.data.num_train=64", "--config.num_devices=1"]
DAMAGE = [b"", b"{}", b"[]", b'"x"', b'{"status": "comp', b"\xff\xfe", b"[" * 10**5]


def states(root, *overrides):
    """The state of each row of the audit."""
    planned = jobs.plan("configs/audit.py", root, overrides=overrides)
    return {job.config.row.partition(":")[2]: job.state for job in planned}


def test_rows_that_make_no_sense_for_the_data_are_left_out_by_name(tmp_path, monkeypatch):
    assert set(states(tmp_path).values()) == {jobs.TO_DO}
    streamed = states(tmp_path, "--config.data.stream=true")
    left_out = {row: state for row, state in streamed.items() if state != jobs.TO_DO}
    reason = "left out: streamed images keep their pixels"
    assert left_out == dict.fromkeys(("shuffled_pixels", "random_pixels", "gaussian"), reason)

    tokens = Info(
        num_train=40, num_test=20, example_shape=(12,), num_classes=2, example_dtype="int32"
    )
    monkeypatch.setattr(data_set, "describe", lambda config: tokens)
    found = states(tmp_path)
    assert found.pop("gaussian") == "left out: tokens have no Gaussian noise"
    assert set(found.values()) == {jobs.TO_DO}


@pytest.fixture
def folders(tmp_path):
    """Plans a config file whose `get_config` has these lines. Returns its folders and rows."""

    def plan(names=""):
        file = tmp_path / "mine.py"
        file.write_text(UNNAMED.format(names=names))
        planned = jobs.plan(str(file), tmp_path / "runs")
        places = [job.workdir.relative_to(tmp_path / "runs").as_posix() for job in planned]
        return places, [job.config.row for job in planned]

    return plan


@pytest.mark.parametrize(
    "names, experiment, row",
    [
        ("", "mine", "mine:{}"),
        ("config.experiment = 'theirs'", "theirs", "theirs:{}"),
        ("config.row = f'theirs:{row}'", "theirs", "theirs:{}"),
        ("config.row = row", "mine", "{}"),
    ],
)
def test_each_row_has_a_folder_of_its_own(names, experiment, row, folders):
    places, rows = folders(names)
    assert places == [f"{experiment}/small/seed_0", f"{experiment}/large/seed_0"]
    assert rows == [row.format("small"), row.format("large")]


@pytest.mark.parametrize(
    "names, reason",
    [
        ("config.row = 'mine:one'", "rows 'small' and 'large' are both named 'mine:one'"),
        ("config.row = 'mine:' + 150 * 'é'", "no folder can have this name"),
        ("config.row = 'mine:../' + row", "no folder can have this name"),
        ("config.experiment, config.row = '/tmp', row", "no folder can have this name"),
    ],
)
def test_names_that_cannot_be_folders_are_refused(names, reason, folders):
    with pytest.raises(InputError, match=reason):
        folders(names)


def test_a_name_that_the_locale_cannot_write_is_refused(folders, monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("ascii"))
    with pytest.raises(InputError, match="set LC_ALL"):
        folders("config.row = 'mine:ä' + row")


def test_a_workdir_that_the_locale_cannot_read_is_refused(tmp_path):
    (job, _) = plan(tmp_path)
    with pytest.raises(InputError, match=r"r\\udcc3n: the locale cannot read this name"):
        experiments.run(job.config, tmp_path / "r\udcc3n")


FILES = ["configs/table1.py", "configs/figure1.py", "configs/table4.py"]
FIRST, SECOND = "ROWS, TELLING = ('a', 'b', 'c'), ('c',)", "ROWS = ('d', 'e', 'f', 'd')"


@pytest.mark.parametrize(
    "rows, order",
    [("", "c1 d1 a1 e1 b1 f1 c2 d2 a2 e2 b2 f2"), ("[abdf]", "a1 d1 b1 f1 a2 d2 b2 f2")],
)
def test_files_take_turns_and_the_most_telling_rows_come_first(rows, order, tmp_path):
    files = []
    for name, lines in (("first", FIRST), ("second", SECOND)):
        text = UNNAMED.format(names="config.max_epochs = ord(row)") + lines
        files.append(str(tmp_path / f"{name}.py"))
        (tmp_path / f"{name}.py").write_text(text)
    planned = jobs.plan(files, tmp_path / "runs", rows, seeds=2)
    found = [f"{job.config.row[-1]}{job.config.seed + 1}" for job in planned]
    assert found == order.split()


def test_every_equal_run_of_the_paper_is_made_once(tmp_path):
    planned = jobs.plan(FILES, tmp_path)
    left = [job for job in planned if job.is_left]
    assert (len(planned), len(left)) == (19 + 45 + 6, 61)
    assert len({jobs._key(job.config) for job in left}) == 61
    assert [job.config.row for job in left[:3]] == [
        "table1:inception+random_labels",
        "figure1:inception+true_labels",
        "table4:inception+wd+random_labels",
    ]
    # Of equal runs, the one that has begun goes on, although another one comes first.
    begun = tmp_path / "figure1/inception+random_labels/seed_0"
    (job,) = [job for job in planned if job.workdir == begun]
    assert job.state == f"same as {tmp_path}/table1/inception+random_labels/seed_0"
    begun.mkdir(parents=True)
    (begun / "config.json").write_text(job.config.to_json())
    states = {job.workdir: job.state for job in jobs.plan(FILES, tmp_path)}
    assert states[begun] == jobs.UNFINISHED
    assert states[tmp_path / "table1/inception+random_labels/seed_0"] == f"same as {begun}"


def test_an_unknown_telling_row_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(UNNAMED.format(names="") + "TELLING = ['smal']")
    with pytest.raises(InputError, match=r"TELLING: unknown row 'smal'\. Did you mean 'small'"):
        jobs.plan(str(tmp_path / "mine.py"), tmp_path)


def plan(root):
    return jobs.plan(QUICKSTART, root, rows="true|random_labels", overrides=FAST)


def finish(job):
    with runs.open_run(job.workdir, job.config, experiments.scientific) as directory:
        directory.append({"step": 1, "epoch": 1, "train_loss": 0.5})
        directory.finish(directory.sealed({"status": "complete", "seed": 0}))


def test_a_finished_run_that_gets_more_epochs_is_left_to_do(tmp_path):
    finish(plan(tmp_path)[0])
    longer = [*FAST, "--config.max_epochs=2"]
    planned = jobs.plan(QUICKSTART, tmp_path, rows="true|random_labels", overrides=longer)
    assert [job.state for job in planned] == ["unfinished", "to do"]


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_run_is_named_and_the_others_go_on(name, content, tmp_path, monkeypatch):
    damaged, other = plan(tmp_path)
    finish(damaged)
    assert [job.state for job in plan(tmp_path)] == ["finished", "to do"]
    (damaged.workdir / name).write_bytes(content)
    planned = plan(tmp_path)
    assert [job.is_left for job in planned] == [True, True]
    run = experiments.run

    def run_damaged(config, workdir, deadline):
        """Really runs the damaged one alone, which ends before JAX is needed."""
        if workdir == str(other.workdir):
            return {"status": "complete"}
        return run(config, workdir, deadline)

    monkeypatch.setattr(experiments, "run", run_damaged)
    first, second = (how for _, how in workers.run_all(planned, 1, 1e9, tmp_path / "logs"))
    assert first.startswith(f"failed: DamagedFile: {damaged.workdir / name} is damaged")
    assert second == "complete"


def test_a_finished_run_with_a_damaged_config_does_not_stand_for_another(tmp_path):
    for number, config in enumerate(([], {"kind": []}, {"row": 3, "data": "x"}, {"workers": "x"})):
        folder = tmp_path / f"foreign_{number}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "result.json").write_text('{"status": "complete"}')
    assert [job.state for job in plan(tmp_path)] == ["to do", "to do"]


def test_a_mistake_in_the_users_network_is_named_by_its_line(tmp_path, monkeypatch):
    source = "import flax.linen as nn\nclass Net(nn.Module):\n    num_classes: int\n"
    source += "    def __call__(self, x, train):\n        return x.nothing\n"
    (tmp_path / "net_with_a_mistake.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [*FAST, "--config.model.name=net_with_a_mistake:Net"]
    (job,) = jobs.plan(QUICKSTART, tmp_path / "runs", rows="true", overrides=overrides)
    ((_, how),) = workers.run_all([job], 1, 1e9, tmp_path / "logs")
    assert f"{tmp_path / 'net_with_a_mistake.py'}, line 5" in how
    assert "nothing" in how
    assert "\n" not in how


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_any_other_exception_leaves_its_traceback_and_a_folder_to_run_in(
    kind, tmp_path, monkeypatch
):
    job, _ = plan(tmp_path)

    def fail(*_):
        raise kind("a mistake of ours")

    monkeypatch.setattr(experiments.training, "run", fail)
    for _ in range(2):
        ((_, how),) = workers.run_all([job], 1, 1e9, tmp_path / "logs")
        log = job.workdir / "errors.txt"
        assert how.endswith(f"{kind.__name__}: a mistake of ours. The traceback is in {log}")
    assert log.read_text().count("Traceback (most recent call last)") == 2
    assert 'raise kind("a mistake of ours")' in log.read_text()
    monkeypatch.setattr(experiments.training, "run", lambda *_: {"status": "complete"})
    ((_, how),) = workers.run_all([job], 1, 1e9, tmp_path / "logs")
    assert how == "complete"
