"""A report on made-up runs for every table and figure, made once for all tests."""

import pytest

from rethinking import report
from rethinking.report import page
from tests.report.runs import everything


@pytest.fixture(scope="session")
def everything_runs(tmp_path_factory):
    """A folder of made-up runs for every table and figure. Tests do not change it."""
    return everything(tmp_path_factory.mktemp("everything") / "runs")


@pytest.fixture(scope="session")
def everything_content(everything_runs):
    """What the report on `everything_runs` says and shows."""
    return report.gather([everything_runs])


@pytest.fixture(scope="session")
def everything_page(everything_runs, everything_content):
    """The page of `everything_runs`. Tests do not change it."""
    output = everything_runs.parent / "report"
    output.mkdir()
    file = output / "index.html"
    file.write_text(page.render(everything_content, output), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def all_tables(everything_content):
    """The tables of `everything_runs` by name."""
    return {table.name: table for table in everything_content.tables}


@pytest.fixture(scope="session")
def all_figures(everything_content):
    """The figures of `everything_runs` by name."""
    return {figure.name: figure for figure in everything_content.figures}
