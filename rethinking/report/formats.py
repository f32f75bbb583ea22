"""Tables as Markdown and CSV, and the report as one page of Markdown.

Names come from run directories. Whatever a name holds is shown as text and never interpreted.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence

from rethinking.report.audit import Answer
from rethinking.report.collect import Collection, slug
from rethinking.report.curves import Figure
from rethinking.report.figures import not_run
from rethinking.report.run import STATUSES, printable
from rethinking.report.tables import Table
from rethinking.report.vega import Spec


@dataclasses.dataclass(frozen=True)
class Content:
    """What the report says and shows."""

    answers: Sequence[Answer]  # of audits
    findings: Sequence[str]  # sentences
    tables: Sequence[Table]
    figures: Sequence[Figure]
    specs: dict[str, Spec]  # by the name of the figure
    collection: Collection


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with aligned columns so that the text can be read as well."""
    notes = table.notes
    lines = [[escape(column.header) for column in table.columns]]
    for row in table.rows:
        cells = [escape(cell) for cell in table.cells(row)]
        cells[-1] += "".join(_mark(table, notes[note]) for note in row.notes)
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    text = "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
    footnotes = [f"{_mark(table, number)}: {escape(note)}\n" for note, number in notes.items()]
    parts = [f"### {escape(table.title)}\n", text + "\n", table.legend + "\n", *footnotes]
    return "\n".join(parts)


def to_report(content: Content) -> str:
    """The report on one page: what the runs found, tables, figures, and what is missing."""
    parts = ["# Report\n"]
    for answer in content.answers:
        question = f"**{escape(answer.question)}** " if answer.question else ""
        parts.append(f"{question}{escape(answer.text)}\n")
    parts += [*(f"- {escape(text)}" for text in content.findings), ""]
    parts += [to_markdown(table) for table in content.tables if table.runs]
    for figure in content.figures:
        title = escape(figure.title)
        parts += [f"### {title}\n", f"![{title}]({figure.name}.png)\n"]
        parts.append(f"{escape(figure.caption)}\n")
    for title, items in remarks(content).items():
        parts += [f"### {title}\n", *(f"- {escape(item)}" for item in items), ""]
    parts.append(
        "`python -m rethinking.report` makes this page. It also makes index.html, where figures "
        "are interactive and numbers lead to their runs."
    )
    return "\n".join(parts) + "\n"


def remarks(content: Content) -> dict[str, list[str]]:
    """What stands at the end of the report: title -> items, without empty lists."""
    tables, figures, collection = content.tables, content.figures, content.collection
    runs = collection.runs
    counts = {status: sum(run.status == status for run in runs) for status in STATUSES}
    partly = [table for table in tables if table.runs and table.missing]
    revisions = sorted({run.revision for run in runs if run.result})
    flags = []
    for figure in figures:
        if figure.revisions:
            flags.append(
                f"{figure.title}: runs of several revisions, {', '.join(figure.revisions)}"
            )
    found = {
        "Not run yet": [table.title for table in tables if not table.runs] + not_run(figures),
        "Rows without a run": [f"{one.title}: {', '.join(one.missing)}" for one in partly],
        "Runs": [f"{counts[status]} {status}" for status in STATUSES if counts[status]],
        "Revisions of the code": [", ".join(revisions), *flags] if revisions else [],
        "Diverged runs": [str(run.path) for run in runs if run.status == "diverged"],
        "Runs that cannot be read": collection.broken,
        "Runs with damaged files": collection.damaged,
        "Runs that repeat another": collection.repeated,
    }
    return {title: items for title, items in found.items() if items}


def _mark(table: Table, number: int) -> str:
    return f"[^{slug(table.name)}-{number}]"


def escape(text: str) -> str:
    """`text` as Markdown that shows it literally, on one line."""
    # An underscore inside a word means nothing. Before a blank, a first # + or - makes a
    # heading or a list.
    marks = r"([\\`*\[\]<>|&$~]|(?<!\w)_|_(?!\w)|^#(?=#* )|^[+-](?= ))"
    return re.sub(marks, r"\\\1", printable(text))


def _cell(text: str) -> str:
    """`text` as a cell of a CSV file, which a spreadsheet shows and does not compute."""
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text


# What a formula begins with, also in the wide forms of East Asian keyboards.
_FORMULAS = (*"=+-@", *"＝＋－＠")  # noqa: RUF001


def to_csv(tables: Sequence[Table]) -> str:
    """A line for every number of every row: ours and the paper's, as fractions in [0, 1]."""
    stream = io.StringIO()
    header = ["table", "row", "column", "field", "mean", "std", "n", "published", *STATUSES]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*header, "seeds", "revisions", "config_digests"])
    for table in tables:
        for row in table.rows:
            counts = [row.count(status) for status in STATUSES]
            seeds = _joined(run.seed for run in row.runs)
            revisions = _cell(_joined(run.revision for run in row.runs))
            digests = _cell(_joined(run.digest for run in row.runs))
            for column in table.columns:
                if not column.field:
                    continue
                value, theirs = column.statistic(row), row.paper(column.field).percent
                ours = ["", "", 0]
                if value:
                    ours = [value.mean, "" if value.std is None else value.std, value.n]
                published = "" if theirs is None else round(theirs / 100, 6)
                names = map(_cell, [table.name, row.name, column.header, column.field])
                writer.writerow([*names, *ours, published, *counts, seeds, revisions, digests])
    return stream.getvalue()


def figure_to_csv(figure: Figure) -> str:
    """Every point of every run, also of runs that do not count in a mean; y is empty for nan."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["panel", "series", "run", "status", "x", "y"])
    for panel in figure.panels:
        for series in panel.series:
            for trace in series.traces:
                title = f"{panel.title}, {panel.y_title}"
                head = [*map(_cell, [title, series.name, trace.label]), trace.status]
                for x, y in zip(trace.x.tolist(), trace.y.tolist(), strict=True):
                    writer.writerow([*head, f"{x:.15g}", "" if y != y else f"{y:.6g}"])
    return stream.getvalue()


def _joined(values) -> str:
    return " ".join(dict.fromkeys(str(value) for value in sorted(values)))
