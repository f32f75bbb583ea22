"""The report in results/ is the one that the records in results/ give."""

import pathlib
import re
import shutil

import pytest

from rethinking import report

RESULTS = pathlib.Path(report.__file__).parents[2] / "results"
PICTURES = {".png", ".svg", ".pdf"}  # which depend on the version of matplotlib


def without_vega(file):
    """The text of a file; of the page less Vega-Lite's programs, which depend on its version."""
    programs = re.compile(r"(</script>\n<script>).*?(</script>\n<script>\n// Draws)", re.DOTALL)
    return programs.sub(r"\1\2", file.read_text())


@pytest.mark.skipif(not RESULTS.is_dir(), reason="no results/ beside the package")
def test_the_committed_report_is_made_from_the_committed_records(tmp_path, monkeypatch):
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report.draw, "KINDS", ())
    report.build(["results"], "results/report")
    made = {file.name: file for file in pathlib.Path("results/report").iterdir()}
    committed = {file.name: file for file in (RESULTS / "report").iterdir() if file.suffix not in PICTURES}
    again = "python -m rethinking.report --runs=results --output=results/report"
    assert made.keys() == committed.keys(), again
    for name, file in made.items():
        assert without_vega(file) == without_vega(committed[name]), f"{name}: {again}"
