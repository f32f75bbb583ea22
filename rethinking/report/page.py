"""The page: one HTML file that holds the tables, the figures and what is missing, and asks for nothing else."""

import base64
import collections
import html
import os
import pathlib
import string
import urllib.parse
from collections.abc import Sequence

from rethinking.report.collect import STATUSES, Collection, Run
from rethinking.report.figures import Drawn
from rethinking.report.tables import Row, Table

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Rethinking generalization: report</title>
<style>
:root { --text: #1a1a1a; --page: #fff; --line: #d5d5d5; --faint: #666; --link: #005a9c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #16181b; --line: #3b3f45; --faint: #a0a0a0; --link: #7cc0ff; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 62rem; margin: 0 auto; padding: 1rem; }
h2 { margin: 2.2rem 0 .5rem; font-size: 1.25rem; }
a { color: var(--link); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tr.missing, .legend, figcaption { color: var(--faint); }
.legend, figcaption { font-size: .85rem; }
figure { display: inline-block; vertical-align: top; width: 29rem; max-width: 100%; margin: .5rem 1rem 1rem 0; }
figure img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
li { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Understanding deep learning requires rethinking generalization</h1>
<p>$summary</p>
$body
</body>
</html>
""")


def render(collection: Collection, tables: Sequence[Table], figures: Sequence[Drawn], output: pathlib.Path) -> str:
    """The page as HTML; links to run directories are relative to the folder `output`, in which the page will lie."""
    counts = collections.Counter(run.status for run in collection.runs)
    summary = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    diverged = [str(run.path) for run in collection.runs if run.status == "diverged"]
    body = [
        *[_table(table, output) for table in tables],
        "<h2>Figures</h2>", *[_figure(figure) for figure in figures if figure.svg],
        _listing("Missing from the figures", [f"{figure.title}: {'; '.join(figure.missing)}" for figure in figures
                                              if figure.missing]),
        _listing("Rows without a run", [f"{table.name}: {', '.join(table.missing)}" for table in tables
                                        if table.runs and table.missing]),
        _listing("Diverged runs", diverged),
        _listing("Left out", collection.broken),
        _listing("Counted once", collection.repeated),
        _run_list(collection.runs, output),
    ]  # fmt: skip
    return _PAGE.substitute(summary=f"Runs: {summary or 'none'}.", body="\n".join(filter(None, body)))


def _table(table: Table, output: pathlib.Path) -> str:
    header = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows, notes = [], []
    for row in table.rows:
        marks = ""
        for note in row.notes:
            notes.append(note)
            marks += f"<sup>{len(notes)}</sup>"
        first, *others = map(html.escape, row.cells)
        cells = "".join(f"<td>{cell}</td>" for cell in [_linked(first, row, output), *others[:-1], others[-1] + marks])
        rows.append(f"<tr{'' if row.runs else ' class=missing'}>{cells}</tr>")
    legend = html.escape(table.legend) + "".join(
        f"<br><sup>{number}</sup> {html.escape(note)}" for number, note in enumerate(notes, 1))
    content = (f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>\n' + "\n".join(rows)
               + f'\n</tbody></table></div>\n<p class="legend">{legend}</p>')
    title = html.escape(table.title)
    if table.runs:
        return f"<h2>{title}</h2>\n{content}"
    return f"<details><summary>{title} (no runs)</summary>\n{content}</details>"


def _linked(name: str, row: Row, output: pathlib.Path) -> str:
    if not row.runs:
        return name
    return f'<a href="{_address(row.runs[0], output)}">{name}</a>'


def _address(run: Run, output: pathlib.Path) -> str:
    relative = pathlib.Path(os.path.relpath((run.path / "config.json").resolve(), output.resolve())).as_posix()
    return html.escape(urllib.parse.quote(relative))


def _figure(figure: Drawn) -> str:
    data = base64.b64encode(figure.svg.read_bytes()).decode()
    title = html.escape(figure.title)
    return (f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption><b>{title}.</b> {html.escape(figure.caption)}</figcaption></figure>")


def _listing(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{html.escape(title)}</h2>\n<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"


def _run_list(runs: Sequence[Run], output: pathlib.Path) -> str:
    items = [f'<li>{html.escape(run.row)}, seed {run.seed}: {run.status}, <a href="{_address(run, output)}">'
             f"{html.escape(str(run.path))}</a></li>" for run in sorted(runs, key=lambda run: (run.row, run.seed))]
    return f"<details><summary>All runs and their configs</summary><ul>{''.join(items)}</ul></details>" if items else ""
