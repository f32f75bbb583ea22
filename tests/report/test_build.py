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

from rethinking import report
from rethinking.errors import InputError
from rethinking.report import figures, formats, page, paper
from rethinking.settings import cifar10, setting
from tests.report.runs import MARKUP, hostile_page, make_run
from tests.started import call

ROOT = str(pathlib.Path(report.__file__).parents[2])


class Page(html.parser.HTMLParser):
    """The tags, links and text of a page, without its scripts and styles."""

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
        settings = setting(cifar10("mlp_1x512"), f"corrupt={p / 10}")
        make_run(
            runs, f"figure1:mlp_1x512+corrupt={p / 10}", config=settings, fit_step=1000 * (p + 1)
        )
    make_run(runs, "table1:alexnet", status="diverged", losses=(2.3, None))
    broken = make_run(runs, "table1:inception")
    (broken / "result.json").write_text("{")
    text = report.build([runs], output)
    assert "### Table 1" in text and "### Runs of Figure 1" in text and "Table 4" not in text
    # p = 0 and p = 1 are rows of Table 1 too.
    names = [f"figure_1{letter}_cifar10" for letter in "abc"]
    drawn = [*names, "curves_figure1", "curves_table1"]
    files = {f"{name}.{kind}" for name in drawn for kind in ("png", "svg", "pdf", "csv")}
    assert {file.name for file in output.iterdir()} == files | {
        "index.html",
        "report.md",
        "rows.csv",
    }
    page_of_markdown = (output / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", page_of_markdown)
    assert pictures == [f"{name}.png" for name in drawn]
    assert text[text.index("### Table 1") :] in page_of_markdown
    assert page_of_markdown.index("fits both the true") < page_of_markdown.index("### Table 1")
    found = Page(output / "index.html")
    assert f"{broken}: result.json is not JSON" in found.text and "Diverged runs" in found.text
    assert "Table 4: random labels with a regularizer" in found.text.partition("Not run yet")[2]
    for link in found.links:  # all lead to places in the page or to existing files
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
    not_run = found.text.partition("Not run yet")[2]
    titles = [*paper.TITLES.values()][:4] + [plot.title for plot in figures.PLOTS]
    assert all(title in not_run for title in titles)
    assert (
        "table" not in found.tags
        and "figure" not in found.tags
        and not list((tmp_path / "report").glob("*.png"))
    )


def test_every_number_leads_to_its_runs_and_their_commands(everything_page):
    text = everything_page.read_text().partition('id="table-table1"')[2]
    cell = re.search(r'<a href="#(runs-\d+)" data-runs>86.40 ± 0.40 \(3\)</a>', text)
    section = re.search(rf'<section id="{cell[1]}">(.*?)</section>', text, re.DOTALL)[1]
    for seed in range(3):
        folder = f"figure1/inception%2Btrue_labels/seed_{seed}/config.json"
        assert f'<a href="../runs/{folder}">config</a>' in section
        command = "--config=configs/figure1.py:inception+true_labels --workdir="
        assert f"{command}{everything_page.parents[1]}" in section
    assert section.count("--config.seed=2 --config.randomize.seed=2") == 1


def test_the_page_is_small_and_always_the_same(everything_page):
    before = everything_page.read_bytes()
    assert len(before) < 1.6e6
    runs, output = everything_page.parents[1] / "runs", everything_page.parent
    assert page.render(report.gather([runs]), output).encode() == before


def test_markup_in_names_is_shown_not_obeyed(tmp_path):
    found = Page(hostile_page(tmp_path))
    # One picture a figure, for browsers without JavaScript, and none from the names.
    assert found.tags.count("img") == found.tags.count("figure") > 0
    assert "script" not in found.tags and MARKUP in found.text
    text = formats.to_report(report.gather([tmp_path]))
    assert r"\<script\>" in text and "<script" not in text.replace(r"\<", "")
    assert not (tmp_path / "mine.md").exists()


def test_output_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        report.build([tmp_path], tmp_path / "file")


def test_watching_makes_the_report_again_when_a_run_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(report.vega, "render", lambda spec: {})
    path = make_run(tmp_path / "runs", "quickstart:true_labels", status="unfinished")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:  # only then does anything change
            (path / "result.json").write_text(
                '{"status": "complete", "train_accuracy": 1.0, "test_accuracy": 0.75}'
            )

    # Only this module's name for it: threads of other tests sleep too.
    monkeypatch.setattr(
        report, "time", types.SimpleNamespace(sleep=pause, monotonic=time.monotonic)
    )
    reports = report.watch([tmp_path / "runs"], tmp_path / "runs" / "report")
    assert "0 of 1 finished" in next(reports)
    assert "75.00 (1)" in next(reports) and len(pauses) == 3


@pytest.mark.parametrize(("arguments", "message"), [
    (["--output=o"], "needed: --runs"),
    (["--runs=nowhere", "--output=o"], "--runs=nowhere: no such folder"),
    (["--runs=gs://a/runs", "--output=o"], "gcloud storage cp --recursive gs://a/runs runs"),
    (["--runs=.", "--outputs=o"], "Unknown command line flag 'outputs'"),
])  # fmt: skip
def test_bad_flags_end_with_exit_code_2(tmp_path, arguments, message):
    ended = subprocess.run(
        [sys.executable, "-m", "rethinking.report", *arguments],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={"PYTHONPATH": ROOT, "PATH": ""},
    )
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr


def test_the_command_prints_the_tables_and_where_the_page_is(tmp_path, monkeypatch):
    make_run(tmp_path / "runs", "quickstart:true_labels", test=0.75)
    monkeypatch.chdir(tmp_path)
    needed = ("runs", "output")
    ended = call("rethinking.report", "--runs=runs", "--output=report", required=needed)
    assert ended.returncode == 0
    assert "75.00 (1)" in ended.stdout and "The page is report/index.html" in ended.stdout
    assert "INFO" not in ended.stderr and len(ended.stderr.splitlines()) < 5, ended.stderr
