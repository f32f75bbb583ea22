"""Files that are damaged or foreign: each run of them is named, and the rest is reported."""

import csv
import io
import itertools
import json
import os
import shutil

import pytest

from rethinking import experiments, report
from rethinking.report import collect, formats, page
from rethinking.rows import EXPERIMENTS, named
from rethinking.runs import json_files
from rethinking.settings import setting
from tests.report.runs import make_run, training_lines, write

GOOD = "table1:mlp_3x512"
HUGE = 10**400
WRONG = ["x", [], {}, None, [[1]], {"a": 1}, HUGE, float("nan"), "=1+1", True, -1.5]
# Another value of the same type is not damage.
RIGHT = {bool: (bool,), int: (int,), float: (int, float), str: (str,), dict: (dict,)}
SOLUTIONS = {
    "solutions": [{"name": "minimum_norm", "norm": 1.0, "test_error": 0.2, "train_error": 0.0}],
    "sgd": [{"start": "zero", "distance": 0.5}],
}
DRAWING = [
    {"x": 0.0, "point": False, "output": 1.0, "units": [0.0]},
    {"x": 1.0, "point": True, "output": 2.0, "units": [1.0]},
]


@pytest.fixture
def runs(tmp_path):
    """A folder with a run of each kind whose result the report reads in parts."""
    make_run(tmp_path, GOOD)
    lines = training_lines(0.1, 0.9, epochs=2)
    make_run(tmp_path, "quickstart:true_labels", lines=lines, shifts={"noise": {"accuracy": 0.5}})
    linear = named(experiments.defaults("linear"), "linear", "mnist")
    write(tmp_path / "linear", linear, [], result=SOLUTIONS)
    built = named(experiments.defaults("expressivity"), "expressivity", "cifar10")
    write(tmp_path / "built", built, [], result={"num_points": 4, "drawing": DRAWING})
    return tmp_path


def everything(root, output):
    """All texts of the report on a folder."""
    content = report.gather([root])
    texts = [formats.to_report(content), formats.to_csv(content.tables)]
    texts += [formats.figure_to_csv(figure) for figure in content.figures]
    return [*texts, page.render(content, output)], content


def places(value, path=()):
    """The paths of all values inside a value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from places(inner, (*path, key))


def copies(run, name, root):
    """Writes a copy of a run for each value of a file and each replacement. Yields what it did."""
    lines = (run / name).read_text().splitlines()
    text = f"[{','.join(lines)}]" if name == "metrics.jsonl" else (run / name).read_text()
    replacements = itertools.cycle(WRONG)
    for where in [*places(json.loads(text))][:80]:
        for number in range(1 if name == "config.json" else 2):
            wrong = next(replacements)
            changed = json.loads(text)
            inner = changed
            for key in where[:-1]:
                inner = inner[key]
            old, inner[where[-1]] = inner[where[-1]], wrong
            copy = root / f"{name}-{'.'.join(map(str, where))}-{number}"
            shutil.copytree(run, copy)
            if name == "metrics.jsonl":
                (copy / name).write_text("".join(json.dumps(line) + "\n" for line in changed))
            else:
                (copy / name).write_text(json.dumps(changed))
            yield copy, where, old, wrong


@pytest.mark.parametrize("kind", ["quickstart", "linear", "built"])
@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl"])
def test_no_value_of_a_wrong_type_stops_a_report(name, kind, runs, tmp_path):
    run = next(file.parent for file in runs.rglob("config.json") if kind in str(file))
    if not (run / name).exists():
        return
    changed = list(copies(run, name, tmp_path / "copies"))
    _, content = everything(tmp_path, tmp_path / "out")
    assert GOOD in {run.row for run in content.collection.runs}
    fields = experiments.KINDS[json.loads((run / "config.json").read_text())["kind"]].FIELDS
    problems = "\n".join(content.collection.broken)
    for copy, where, _, wrong in changed:
        field = fields.get(".".join(map(str, where)))
        is_wrong = field and type(wrong) not in RIGHT[type(field.default)]
        if name == "config.json" and is_wrong:
            assert f"{copy}: config.json" in problems


def test_an_accuracy_or_a_loss_that_is_a_text_is_named(tmp_path):
    make_run(tmp_path, GOOD)
    first = make_run(tmp_path, "table1:mlp_1x512", test="0.9")
    lines = [{"step": 0, "epoch": 0, "train_loss": 2.0}, {"step": 1, "epoch": 1, "train_loss": "x"}]
    second = make_run(tmp_path, "table1:mlp_1x512", seed=1, lines=lines, steps=1, epochs=1)
    collection = collect.collect([tmp_path])
    assert collection.broken == [
        f"{first}: result.json is damaged: test_accuracy is '0.9', not a number or null"
    ]
    assert [text for text in collection.damaged if str(second) in text] == [
        f"{second}: metrics.jsonl is damaged: line 2 is "
        '\'{"step": 1, "epoch": 1, "train_loss": "x"}\''
    ]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'"x"', b"3", b"null", b"\xff\xfe", b"[" * 10**5, b'{"a":' * 500]
)
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_file_is_named_and_its_run_is_not_taken_for_a_finished_one(
    name, content, tmp_path
):
    make_run(tmp_path, GOOD)
    path = make_run(tmp_path, "table1:mlp_1x512")
    (path / name).write_bytes(content)
    collection = collect.collect([tmp_path])
    assert [run.row for run in collection.runs] == [GOOD]
    (reason,) = collection.broken
    assert reason.startswith(f"{path}: {name} ")


@pytest.mark.parametrize(
    "keep, cut, reason",
    [
        (slice(None), "", ""),
        (slice(0, 2), "", "ends at step 390, but the run has 780 steps: lines are missing"),
        (slice(None), '{"step": 1', "the last line of metrics.jsonl is cut short"),
    ],
)
def test_lost_lines_of_a_finished_run_are_said(keep, cut, reason, tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512", steps=780, epochs=2, train=0.75)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[keep]) + cut)
    texts, content = everything(tmp_path, tmp_path / "out")
    assert len(content.collection.damaged) == bool(reason)
    assert reason in texts[0] and reason in texts[-1]
    assert ("Runs with damaged files" in texts[0]) == bool(reason)
    assert "75.00" in texts[0]  # its numbers are in result.json


def sealed(path):
    """Gives a run's result the digests that a run writes today."""
    lines = json_files.read_lines(path / "metrics.jsonl")
    result = json.loads((path / "result.json").read_text())
    result["metrics_sha256"] = json_files.digest_of_lines(lines)
    (path / "result.json").write_text(json.dumps(json_files.seal(result)))


def test_a_changed_number_of_a_finished_run_is_said(tmp_path):
    first, second, third = (make_run(tmp_path, GOOD, seed=seed) for seed in range(3))
    for path in (first, second, third):
        sealed(path)
    lines = (second / "metrics.jsonl").read_text()
    (second / "metrics.jsonl").write_text(lines.replace('"train_loss": 0.5', '"train_loss": 0.4'))
    result = (third / "result.json").read_text()
    (third / "result.json").write_text(
        result.replace('"test_accuracy": 0.5', '"test_accuracy": 0.6')
    )
    collection = collect.collect([tmp_path])
    assert [run.path for run in collection.runs] == [first, second]
    assert collection.damaged == [
        f"{second}: metrics.jsonl has changed since the run ended: its lines do not match "
        "result.json"
    ]
    (reason,) = collection.broken
    assert reason.startswith(f"{third}: result.json is damaged: its numbers do not match")


@pytest.mark.parametrize("change", [{"learning_rate": 0.7}, {"seed": 3}])
def test_a_changed_config_of_a_finished_run_is_said(change, tmp_path):
    file = make_run(tmp_path, "table1:mlp_1x512") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    collection = report.gather([tmp_path]).collection
    assert not collection.runs
    (said,) = collection.broken
    assert "config.json has changed since the run ended" in said


def test_a_running_run_with_a_half_written_line_is_not_damaged(tmp_path):
    path = make_run(tmp_path, "table1:mlp_1x512", status="unfinished")
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1170')
    collection = collect.collect([tmp_path])
    assert len(collection.runs) == 1 and not collection.damaged and not collection.broken


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
def test_what_is_not_a_file_is_named(name, tmp_path):
    make_run(tmp_path, GOOD)
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda file: os.symlink(file, file))):
        path = make_run(tmp_path, "table1:mlp_1x512", seed=number)
        (path / name).unlink()
        make(path / name)
    collection = collect.collect([tmp_path])
    assert [run.row for run in collection.runs] == [GOOD]
    assert len(collection.broken) == 3
    assert len(collect.state([tmp_path])) >= 3


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make_run(tmp_path, GOOD)
    closed = make_run(tmp_path, "table1:mlp_1x512").parent
    scan = os.scandir

    def refuse(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (reason,) = collect.collect([tmp_path]).broken
    assert reason == f"{closed}: the folder cannot be read: Permission denied"


def test_folders_that_contain_themselves_end(tmp_path):
    path = make_run(tmp_path, GOOD)
    (path / "again").symlink_to(tmp_path)
    assert len(collect.collect([tmp_path]).runs) == 1


NAMES = [
    "\u7db2" * 5000,  # a file system counts its bytes
    "\U0001f642" * 300,  # a cut inside one of these leaves no character
    "e" * 5000,
    "a|b\n<b>*x*</b> _y_ [z](w)",
    "../../../x",
    "..",
    "a\0b",
    "\ud83d",
]


def make_named(root, name):
    """A run whose experiment, row, network, data set, revision and device have this name."""
    settings = setting(experiments.defaults("training"), "true_labels")
    settings.model.name = settings.data.name = name
    path = make_run(root, "mine:x", config=settings, revision=name, device=name)
    text = (path / "config.json").read_text()
    quoted = json.dumps(f"{name}:{name}")[1:-1]
    (path / "config.json").write_text(text.replace('"mine:x', f'"{quoted}'))


def test_a_run_of_any_name_is_reported(tmp_path):
    for number, name in enumerate(NAMES):
        make_named(tmp_path / str(number), name)
    _, content = everything(tmp_path, tmp_path / "out")
    assert len(content.collection.runs) == len(NAMES)
    assert len({figure.name for figure in content.figures}) == len(content.figures)


@pytest.mark.parametrize("name", NAMES[:2], ids=["wide", "emoji"])
def test_a_run_of_any_name_has_its_figures(name, tmp_path):
    make_named(tmp_path / "runs", name)
    report.build([tmp_path / "runs"], tmp_path / "report")
    pictures = {file.suffix for file in (tmp_path / "report").glob("curves_*")}
    assert pictures == {".png", ".svg", ".pdf", ".csv"}


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t=", "\r=", " =", "\uff1d"])
def test_no_cell_of_a_csv_file_is_a_formula(first, tmp_path):
    make_named(tmp_path, f"{first}cmd|' /C calc'!A0")
    content = report.gather([tmp_path])
    texts = [formats.to_csv(content.tables), *map(formats.figure_to_csv, content.figures)]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text)) for cell in row]
    assert sum("calc" in cell for cell in cells) > 10
    for cell in cells:
        is_number = cell.removeprefix("-").replace(".", "").isdecimal()
        assert is_number or not cell.strip().startswith((*"=+-@", "\uff1d")), cell


def test_a_negative_number_stays_a_number_in_the_csv_file(tmp_path):
    make_run(tmp_path, "quickstart:true_labels", train=-0.5)
    assert ",-0.5,," in formats.to_csv(report.gather([tmp_path]).tables)


def test_all_rows_of_this_project_are_whole(tmp_path):
    """The configs that the project itself writes pass the check of their types."""
    number = 0
    for experiment in EXPERIMENTS.values():
        for row in experiment.rows[::3]:
            write(tmp_path / str(number), experiment.get_config(row), [], status="unfinished")
            number += 1
    collection = collect.collect([tmp_path])
    assert not collection.broken
