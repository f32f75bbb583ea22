"""Tables as text: Markdown, LaTeX and CSV; and a page of Markdown. Whatever a name holds is shown and not obeyed."""

import csv
import io
import re
from collections.abc import Sequence

from rethinking.report.collect import printable, slug
from rethinking.report.curves import Figure
from rethinking.report.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", '"': "''", "±": r"$\pm$", "≈": r"$\approx$", "≠": r"$\neq$",
    "–": "--", "†": r"$\dagger$",  # noqa: RUF001
}  # fmt: skip


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its columns aligned for reading it as plain text as well."""
    lines, notes = [[escape(column.header) for column in table.columns]], table.notes
    for row in table.rows:
        cells = [escape(cell.text) for cell in table.cells(row)]
        lines.append([*cells[:-1], cells[-1] + "".join(_mark(table, notes[note]) for note in row.notes)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    text = "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
    footnotes = [f"{_mark(table, number)}: {escape(note)}\n" for note, number in notes.items()]
    return "\n".join([f"### {escape(table.title)}\n", text + "\n", table.legend + "\n", *footnotes])


def to_report(tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """Tables and figures that have runs on one page of Markdown, beside the figures' PNG files, and what is missing."""
    parts = ["# Report\n", "Made by `python -m rethinking.report`; see also [the interactive page](index.html).\n"]
    parts += [to_markdown(table) for table in tables if table.runs]
    missing = [f"{table.title}: {', '.join(table.missing)}" for table in tables if table.missing]
    for figure in figures:
        if figure.panels:
            parts += [f"### {escape(figure.title)}\n", f"![{escape(figure.title)}]({figure.name}.png)\n",
                      f"{escape(figure.caption)}\n"]
        missing += [f"{figure.title}: {'; '.join(figure.missing)}"] * bool(figure.missing)
    parts += ["### Missing\n", *(f"- {escape(text)}" for text in missing)]
    return "\n".join(parts) + "\n"


def _mark(table: Table, number: int) -> str:
    return f"[^{slug(table.name)}-{number}]"


def escape(text: str) -> str:
    """`text` as Markdown that shows it literally, on one line; underscores inside words need no escape."""
    return re.sub(r"([\\`*\[\]<>|&$~])", r"\\\1", printable(text))


def to_latex(table: Table) -> str:
    """The table for a paper that has \\usepackage{booktabs,graphicx}; as wide as the line at most."""
    notes = table.notes
    lines = [" & ".join(latex(column.header) for column in table.columns) + r" \\", r"\midrule"]
    for row in table.rows:
        marks = ",".join(str(notes[note]) for note in row.notes)
        cells = " & ".join(latex(cell.text) for cell in table.cells(row))
        lines.append(cells + (f"$^{{{marks}}}$" if marks else "") + r" \\")
    footnotes = "".join(f" $^{{{number}}}$ {latex(note)}" for note, number in notes.items())
    body = "\n".join(lines)
    heading, _, subject = table.title.partition(": ")  # LaTeX numbers its tables itself
    title = f"{subject[:1].upper()}{subject[1:]} ({heading})" if subject else heading
    return rf"""% \usepackage{{booktabs,graphicx}}
\begin{{table}}
\centering
\caption{{{latex(title)}. {latex(table.legend)}{footnotes}}}
\label{{tab:{slug(table.name).replace("_", "-")}}}
\medskip
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{l{"r" * (len(table.columns) - 1)}}}
\toprule
{body}
\bottomrule
\end{{tabular}}}}
\end{{table}}
"""


def latex(text: str) -> str:
    """`text` as LaTeX that shows it literally; signs that LaTeX's own fonts lack become question marks."""
    shown = "".join(_LATEX.get(char, char) for char in printable(text))
    return "".join(char if ord(char) < 0x250 else "?" for char in shown)


def to_csv(tables: Sequence[Table]) -> str:
    """A line for every number of every row: mean, deviation and n of ours, and the paper's; fractions in [0, 1]."""
    header = ["table", "row", "column", "field", "mean", "std", "n", "published", "complete", "diverged", "unfinished",
              "seeds", "revisions", "config_digests"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for table in tables:
        for row in table.rows:
            counts = [*map(row.count, ("complete", "diverged", "unfinished"))]
            names = [" ".join(dict.fromkeys(map(str, values))) for values in (
                sorted(run.seed for run in row.runs), sorted(run.revision for run in row.runs),
                sorted(run.digest for run in row.runs))]
            for column in table.columns:
                if column.field:
                    value, theirs = column.statistic(row), column.published(row).percent
                    ours = (value.mean, "" if value.std is None else value.std, value.n) if value else ("", "", 0)
                    published = "" if theirs is None else round(theirs / 100, 6)
                    writer.writerow([table.name, row.name, column.header, column.field, *ours, published, *counts,
                                     *names])
    return stream.getvalue()
