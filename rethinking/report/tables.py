"""The tables: our mean, spread and number of runs beside the published numbers."""

import dataclasses
import re

from rethinking.report import columns, kinds, paper
from rethinking.report.collect import Collection
from rethinking.report.columns import Column, Row
from rethinking.report.paper import DataSet
from rethinking.report.run import Run
from rethinking.report.settings import longest, split
from rethinking.rows import SETTINGS, TABLE1_MODELS

OURS = (
    "Ours: mean ± sample standard deviation (number of complete runs), at the end of training. "
    "A single run has no standard deviation."
)
_BEST = "In brackets: the best test accuracy during training."


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; `formats` and `page` render it."""

    name: str
    title: str
    columns: list[Column]
    rows: list[Row]
    legend: str

    def cells(self, row: Row) -> list[str]:
        """The cells of a row, one per column."""
        return [column.cell(row) for column in self.columns]

    @property
    def notes(self) -> dict[str, int]:
        """The footnotes of all rows, numbered from 1."""
        texts = dict.fromkeys(note for row in self.rows for note in row.notes)
        return {text: number for number, text in enumerate(texts, 1)}

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def missing(self) -> list[str]:
        """The rows without a run."""
        return [row.name for row in self.rows if not row.runs]


def make(collection: Collection) -> list[Table]:
    """Tables 1 to 4 with all published rows, and a table of every other experiment that has runs.

    Runs of Tables 1, 2 and 4 on other data than the paper's have tables of their own, without
    published numbers. Last comes a table of shifted test sets.
    """
    tables = [_experiment(collection, name, paper.DATA.get(name)) for name in sorted(paper.TABLES)]
    for name in sorted({run.experiment for run in collection.runs}):
        runs = [run for run in collection.runs if run.experiment == name]
        if name in paper.DATA:
            others = {run.data for run in runs} - {paper.DATA[name]}
            tables += [_experiment(collection, name, data) for data in sorted(others)]
        elif name not in paper.TABLES:
            tables.append(_experiment(collection, name))
    return tables + _shifts(collection)


def _experiment(collection: Collection, experiment: str, data: DataSet | None = None) -> Table:
    """The table of an experiment; with `data`, of its runs on that training set alone."""
    runs = collection.of_experiment(experiment)
    kind = kinds.KINDS[_kind(experiment, runs)]
    title = paper.TITLES.get(experiment, f"{experiment}: {kind.title}")
    published = {}
    name = experiment
    if data == paper.DATA.get(experiment):
        published = paper.TABLES.get(experiment, {})
    else:
        title = f"Table {experiment.removeprefix('table')} on {data}: {kind.title}"
        name = f"{experiment}_{data.key}"
    rows = _rows(collection, experiment, data, published)
    shown = []
    for one in kind.columns:
        made = columns.make(one, rows)
        has_values = any(run.value(one.field) is not None for row in rows for run in row.runs)
        if len(made) > 1 or has_values:  # the paper's numbers stand there in any case
            shown += made
    legends = [OURS, kind.legend]
    if published:
        legends += [columns.DIFFERENCES, paper.NOTES.get(experiment, "")]
    if experiment == "table2" and published:
        legends.append(_BEST)
    header = [columns.NAME, *shown, columns.RUNS]
    return Table(name, title, header, rows, " ".join(filter(None, legends)))


def _kind(experiment: str, runs: list[Run]) -> str:
    if runs:
        return runs[0].kind
    return "kernels" if experiment == "table3" else "training"


def _rows(
    collection: Collection,
    experiment: str,
    data: DataSet | None,
    published: dict[str, paper.Published],
) -> list[Row]:
    """Every published row, and every other row that was run, each as one or more."""
    found = {}
    for name in collection.rows(experiment):
        runs = collection.of_row(f"{experiment}:{name}")
        found[name] = [run for run in runs if data in (None, run.data)]
    names = [name for name, runs in found.items() if runs]
    rows = []
    papers = [name for name in paper.TABLES.get(experiment, ()) if name in names]
    for name in dict.fromkeys((*published, *papers, *sorted(names, key=_order))):
        parts = split(experiment, name, found.get(name, []), published=name in published)
        if name in published and name not in parts:  # no run has the row's own settings
            part, note = longest(experiment, name, parts)
            runs, notes = parts.pop(part, ([], []))
            rows.append(Row(name, runs, [note, *notes] if runs else [], published[name]))
        for part, (runs, notes) in parts.items():
            rows += _by_solution(Row(part, runs, notes, published.get(part, {})))
    return rows


def _by_solution(row: Row) -> list[Row]:
    """A row for each solution that the runs of `row` found; `row` itself if they found none."""
    names = dict.fromkeys(name for run in row.runs for name in run.solutions)
    rows = []
    for name in names:
        runs = [run.solutions.get(name, run) for run in row.runs]
        title = f"{row.name}, {paper.SOLUTION_TITLES.get(name, name)}"
        rows.append(Row(title, runs, row.notes))
    return rows or [row]


def _order(name: str) -> list[tuple]:
    """Sorts row names by network and setting as in the paper, then by number."""
    order = [*TABLE1_MODELS, *SETTINGS]
    key = []
    for part in name.split("+"):
        place = order.index(part) if part in order else len(order)
        pieces = re.findall(r"([^0-9]*)([0-9]{0,9})", part)
        key.append((place, [(letters, int(digits or 0)) for letters, digits in pieces]))
    return key


def _shifts(collection: Collection) -> list[Table]:
    """Test accuracy on the test sets of `config.eval.shifts`; no table if no run has any."""
    runs = [run for run in collection.runs if run.shifts]
    if not runs:
        return []
    rows = []
    for row in sorted({run.row for run in runs}):
        experiment, _, name = row.partition(":")
        parts = split(experiment, name, [run for run in runs if run.row == row])
        rows += [Row(f"{experiment}:{part}", *found) for part, found in parts.items()]
    names = dict.fromkeys(name for run in runs for name in run.shifts)
    header = [columns.NAME, columns.percent("test", "test_accuracy")]
    header += [columns.percent(name, f"shifts.{name}") for name in names]
    legend = (
        f"{OURS} The test set distorted at strengths 1 to 3, or other test sets of the same "
        "classes; see rethinking/data/shifts.py."
    )
    title = "Distribution shift: test accuracy in percent"
    return [Table("shifts", title, [*header, columns.RUNS], rows, legend)]
