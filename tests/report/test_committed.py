"""The report in results/ is the one that the records in results/ give."""

import pathlib
import re
import shutil

import pytest

from rethinking import report
from rethinking.report import formats

RESULTS = pathlib.Path(report.__file__).parents[2] / "results"
AGAIN = "python -m rethinking.report --runs=results --output=results/report"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="no results/ beside the package")
def test_the_committed_report_is_made_from_the_committed_records(tmp_path, monkeypatch):
    records = shutil.ignore_patterns("report", "checkpoints")
    shutil.copytree(RESULTS, tmp_path / "results", ignore=records)
    monkeypatch.chdir(tmp_path)
    text = formats.to_report(report.gather(["results"]))
    assert text == (RESULTS / "report" / "report.md").read_text(), AGAIN
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert pictures
    for picture in pictures:
        assert (RESULTS / "report" / picture).is_file(), AGAIN
