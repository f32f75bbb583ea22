"""The report as a whole, its page as text, and the command that makes it."""

import html.parser
import pathlib
import re
import subprocess
import sys
import time
import types
import urllib.parse

import pytest

from rethinking import report, rows
from rethinking.errors import InputError
from rethinking.report import collect, figures, formats, page, tables
from tests.report_runs import MARKUP, everything, hostile_page, make_run, write_page

ROOT = str(pathlib.Path(report.__file__).parents[2])


@pytest.fixture(scope="module")
def everything_page(tmp_path_factory):
    """A page of made-up runs for every table and figure."""
    root = tmp_path_factory.mktemp("everything")
    return write_page(everything(root / "runs"), root / "report")


class Page(html.parser.HTMLParser):
    """Collects tags, links and text, of the page's own part: less what its programs and styles hold."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.links, self.ids, self.text = [], [], set(), ""
        self.feed(re.sub(r"<(script|style)\b.*?</\1>", "", file.read_text(), flags=re.DOTALL))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_data(self, data):
        self.text += data


def test_report_of_a_half_finished_folder_with_all_its_files(tmp_path):
    runs, output = tmp_path / "runs", tmp_path / "report"
    for p in range(0, 11, 5):
        settings = rows.setting(rows.cifar10("mlp_1x512"), f"corrupt={p / 10}")
        make_run(runs, f"figure1:mlp_1x512+corrupt={p / 10}", config=settings, fit_step=1000 * (p + 1))
    make_run(runs, "table1:alexnet", status="diverged", losses=(2.3, None))
    broken = make_run(runs, "table1:inception")
    (broken / "result.json").write_text("{")
    text = report.build([runs], output)
    assert "### Table 1" in text and "### Figure 1" in text and "Table 4" not in text
    # Figure 1's ends, p = 0 and 1, are rows of Table 1, too.
    drawn = [f"figure_1{letter}_cifar10" for letter in "abc"] + ["curves_figure1", "curves_table1"]
    assert {file.name for file in output.iterdir()} == {"index.html", "report.md", "rows.csv"} | {
        f"{name}.{kind}" for name in drawn for kind in ("png", "svg", "pdf", "csv")} | {
        f"{name}.{kind}" for name in ("table1", "table2", "table3", "table4", "figure1", "inductive_bias")
        for kind in ("md", "tex")}
    page_of_markdown = (output / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", page_of_markdown)
    assert pictures == [f"{name}.png" for name in drawn]
    assert text in page_of_markdown and "MLP 1x512: no run with p = 0.1, 0.2, 0.3" in page_of_markdown
    found = Page(output / "index.html")
    assert f"{broken}: result.json is not JSON" in found.text and "Diverged runs" in found.text
    assert "MLP 1x512: no run with p = 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9" in found.text
    for link in found.links:  # to places in the page, and to files that are there; none to any host
        parts = urllib.parse.urlsplit(link)
        assert not parts.netloc and parts.scheme in ("", "data"), link
        if link.startswith("#"):
            assert link[1:] in found.ids, link
        elif not parts.scheme:
            assert (output / urllib.parse.unquote(parts.path)).resolve().is_file(), link


def test_report_of_nothing(tmp_path):
    (tmp_path / "runs").mkdir()
    assert report.build([tmp_path / "runs"], tmp_path / "report") == "No runs.\n"
    found = Page(tmp_path / "report" / "index.html")
    assert "Runs: none." in found.text and "no runs on cifar10" in found.text and "inception+crop+wd" in found.text
    assert "figure" not in found.tags and not list((tmp_path / "report").glob("*.png"))


def test_every_number_leads_to_its_runs_and_their_commands(everything_page):
    text = everything_page.read_text()
    cell = re.search(r'<a href="#(runs-\d+)" data-runs>86.40 ± 0.40 \(3\)</a>', text)
    section = re.search(rf'<section id="{cell[1]}">(.*?)</section>', text, re.DOTALL)[1]
    for seed in range(3):
        folder = f"figure1/inception%2Btrue_labels/seed_{seed}/config.json"
        assert f'<a href="../runs/{folder}">config</a>' in section
        assert f"--config=configs/figure1.py:inception+true_labels --workdir={everything_page.parents[1]}" in section
    assert section.count("--config.seed=2 --config.randomize.seed=2") == 1


def test_the_page_is_small_and_always_the_same(everything_page):
    before = everything_page.read_bytes()
    assert len(before) < 1.6e6
    assert write_page(everything_page.parents[1] / "runs", everything_page.parent).read_bytes() == before


def test_points_are_thinned_if_there_are_too_many(tmp_path, monkeypatch):
    make_run(tmp_path / "runs", "mine:true_labels", losses=tuple(range(1000)))
    monkeypatch.setattr(page, "MOST_POINTS", 100)
    text = write_page(tmp_path / "runs", tmp_path / "report").read_text()
    (points, *_) = [part.split(",") for part in re.findall(r'"y":\[([\d.,]*)\]', text)]
    assert 30 < len(points) < 60 and [*points[:2], points[-1]] == ["0.0", "20.0", "999.0"]


def test_markup_in_names_is_shown_not_obeyed(tmp_path):
    found = Page(hostile_page(tmp_path))
    assert found.tags.count("img") == found.tags.count("figure")  # the page's own, for browsers without JavaScript
    assert "script" not in found.tags and MARKUP in found.text
    collection = collect.collect([tmp_path])
    text = formats.to_report(tables.make(collection), figures.make(collection))
    assert r"\<script\>" in text and "<script" not in text.replace(r"\<", "")
    assert not (tmp_path / "mine.md").exists()


def test_output_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        report.build([tmp_path], tmp_path / "file")


def test_watching_makes_the_report_again_when_a_run_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(report.draw, "draw", lambda figures, output: None)
    path = make_run(tmp_path / "runs", "quickstart:true_labels", status="unfinished")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:  # only then does anything change
            (path / "result.json").write_text('{"status": "complete", "train_accuracy": 1.0, "test_accuracy": 0.75}')

    # The module's own name for it: threads that other tests left behind sleep, too.
    monkeypatch.setattr(report, "time", types.SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    reports = report.watch([tmp_path / "runs"], tmp_path / "runs" / "report")
    assert "0 of 1 finished" in next(reports)
    assert "75.00 (1)" in next(reports) and len(pauses) == 3


@pytest.mark.parametrize(("arguments", "message"), [
    (["--output=o"], "needed: --runs"),
    (["--runs=nowhere", "--output=o"], "--runs=nowhere: no such folder"),
    (["--runs=gs://bucket/runs", "--output=o"], "gcloud storage cp --recursive gs://bucket/runs runs"),
    (["--runs=.", "--outputs=o"], "Unknown command line flag 'outputs'"),
])  # fmt: skip
def test_bad_flags_end_with_exit_code_2(tmp_path, arguments, message):
    ended = subprocess.run([sys.executable, "-m", "rethinking.report", *arguments], cwd=tmp_path, text=True,
                           capture_output=True, env={"PYTHONPATH": ROOT, "PATH": ""})
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr


def test_the_command_prints_the_tables_and_where_the_page_is(tmp_path):
    make_run(tmp_path / "runs", "quickstart:true_labels", test=0.75)
    ended = subprocess.run([sys.executable, "-m", "rethinking.report", "--runs=runs", "--output=report"], cwd=tmp_path,
                           text=True, capture_output=True, env={"PYTHONPATH": ROOT, "PATH": "", "HOME": str(tmp_path)})
    assert ended.returncode == 0 and "75.00 (1)" in ended.stdout and "The page is report/index.html" in ended.stdout
    assert "INFO" not in ended.stderr and len(ended.stderr.splitlines()) < 5, ended.stderr
