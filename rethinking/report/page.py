"""The page: one HTML file that holds the tables, the figures, what is missing and every run, and asks for nothing else.

Figures are drawn in the browser by Vega-Lite, whose programs are part of the page: see page.js.
"""

import collections
import html
import json
import math
import os
import pathlib
import string
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from rethinking.report.collect import FILES, STATUSES, Collection, Run, slug
from rethinking.report.columns import Cell, Row
from rethinking.report.command import command
from rethinking.report.curves import Figure, Trace
from rethinking.report.draw import DASHES
from rethinking.report.draw import KINDS as PICTURES
from rethinking.report.paper import MISSING
from rethinking.report.tables import Table

MOST_POINTS = 100_000  # in all figures of a page together, about 2 MB
_PARTS = pathlib.Path(__file__).parent


def render(collection: Collection, tables: Sequence[Table], figures: Sequence[Figure], output: pathlib.Path) -> str:
    """The page as HTML; links to run directories are relative to the folder `output`, in which the page will lie."""
    drawn = [figure for figure in figures if figure.panels]
    groups = _Runs(output)
    body = [
        *[_table(table, groups) for table in tables],
        *[_figure(number, figure) for number, figure in enumerate(drawn)],
        _listing("Figures without runs", [f"{figure.title}: {'; '.join(figure.missing)}" for figure in figures
                                          if not figure.panels]),
        _listing("Rows without a run", [f"{table.title}: {', '.join(table.missing)}" for table in tables
                                        if table.runs and table.missing]),
        _listing("Diverged runs", [str(run.path) for run in collection.runs if run.status == "diverged"]),
        _listing("Left out", collection.broken),
        _listing("Counted once", collection.repeated),
        groups.render(),
    ]  # fmt: skip
    links = [(f"table-{slug(table.name)}", table.title.partition(":")[0]) for table in tables if table.runs]
    shorts = collections.Counter(figure.title.partition(":")[0] for figure in drawn)
    links += [(figure.name, short if shorts[short := figure.title.partition(":")[0]] == 1 else figure.title)
              for figure in drawn]
    return string.Template(_part("html")).substitute(
        style=_part("css"), script=_part("js"), vega=_vega(), figures=_payload(drawn), summary=_summary(collection),
        contents=" ".join(f'<a href="#{html.escape(anchor)}">{html.escape(text)}</a>' for anchor, text in links),
        body="\n".join(filter(None, body)))


def _part(kind: str) -> str:
    return (_PARTS / f"page.{kind}").read_text(encoding="utf-8")


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    import vl_convert  # here, since nothing else needs it

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def _summary(collection: Collection) -> str:
    counts = collections.Counter(run.status for run in collection.runs)
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    revisions = sorted({run.revision for run in collection.runs if run.result})
    text = f"Runs: {listed or 'none'}."
    if revisions:
        text += f" Revision{'s' * (len(revisions) > 1)} of the code: {', '.join(revisions)}."
    return html.escape(text)


def _table(table: Table, groups: "_Runs") -> str:
    header = "".join(f'<th scope="col">{html.escape(column.header)}</th>' for column in table.columns)
    rows, notes = [], table.notes
    for row in table.rows:
        anchor = groups.add(table, row) if row.runs else ""
        marks = f" <sup>{', '.join(str(notes[note]) for note in row.notes)}</sup>" if row.notes else ""
        first, *others = table.cells(row)
        cells = "".join(_cell(cell, anchor, column.header.endswith("paper"))
                        for cell, column in zip(others, table.columns[1:], strict=True))
        kind = "" if row.runs else " class=missing"
        rows.append(f'<tr{kind}><th scope="row">{_breakable(first.text)}{marks}</th>{cells}</tr>')
    legend = html.escape(table.legend) + "".join(
        f"<br><sup>{number}</sup> {html.escape(note)}" for note, number in notes.items())
    files = _files(slug(table.name), ("md", "tex")) + '<a href="rows.csv">CSV of all tables</a>'
    content = (f'<div class="scroll" tabindex="0"><table><thead><tr>{header}</tr></thead><tbody>\n' + "\n".join(rows)
               + f'\n</tbody></table></div>\n<p class="legend">{legend}</p><p class="files">{files}</p>')
    title = html.escape(table.title)
    if table.runs:
        return f'<section id="table-{html.escape(slug(table.name))}"><h2>{title}</h2>\n{content}</section>'
    return f'<details class="group"><summary>{title} (no runs)</summary>\n{content}</details>'


def _breakable(name: str) -> str:
    return html.escape(name).replace("+", "+<wbr>")


def _cell(cell: Cell, anchor: str, published: bool) -> str:
    text = html.escape(cell.text)
    if cell.ours and anchor:
        text = f'<a href="#{anchor}" data-runs>{text}</a>'
    kind = {None: "paper" if published else "", True: "within", False: "outside"}[cell.within]
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


class _Runs:
    """The list at the end of the page of the runs behind each row of a table: numbers, files and commands."""

    def __init__(self, output: pathlib.Path):
        self._output, self._sections = output.resolve(), []

    def add(self, table: Table, row: Row) -> str:
        """Adds the runs of a row; returns the anchor under which they are found."""
        anchor = f"runs-{len(self._sections)}"
        columns = [column for column in table.columns if column.field]
        header = ["run", "files", "status", *(column.header for column in columns), "seconds", "device", "revision"]
        lines = [f"<tr>{''.join(f'<th>{html.escape(text)}</th>' for text in header)}</tr>"]
        commands = []
        for run in row.runs:
            name = f"seed {run.seed}" + f" of {run.row}" * (run.row != f"{table.name}:{row.name}")
            values = [MISSING if (value := column.value(run)) is None else column.show(value) for column in columns]
            seconds = run.value("seconds")
            texts = [run.status, *values, MISSING if seconds is None else f"{seconds:.0f}",
                     str((run.result or {}).get("device", MISSING)), run.revision]
            lines.append(f"<tr><th>{_breakable(name)}</th><td>{' '.join(self._links(run))}</td>"
                         f"{''.join(f'<td>{html.escape(text)}</td>' for text in texts)}</tr>")
            commands.append(f'<div class="command"><pre><code>{html.escape(command(run))}</code></pre>'
                            '<button type="button" class="copy">Copy</button></div>')
        title = html.escape(f"{table.title.partition(':')[0]}: {row.name}")
        self._sections.append(
            f'<section id="{anchor}"><h3>{title}</h3><div class="scroll"><table>{"".join(lines)}</table></div>'
            f"<p>Made by:</p>{''.join(commands)}</section>")
        return anchor

    def _links(self, run: Run) -> Iterator[str]:
        for file in FILES:
            path = run.path.resolve() / file
            if path.exists():
                relative = pathlib.Path(os.path.relpath(path, self._output)).as_posix()
                address = html.escape(urllib.parse.quote(os.fsencode(relative)))
                yield f'<a href="{address}">{file.partition(".")[0]}</a>'

    def render(self) -> str:
        """The list, folded."""
        return (f'<details class="group"><summary>All runs, their configs and commands</summary>'
                f"{''.join(self._sections)}</details>" if self._sections else "")


def _figure(number: int, figure: Figure) -> str:
    title, name = html.escape(figure.title), html.escape(figure.name)
    missing = f" Missing: {html.escape('; '.join(figure.missing))}." if figure.missing else ""
    content = (f'<figure data-figure="{number}"><div class="panels"></div>'
               f'<noscript><img src="{name}.svg" alt="{title}"></noscript>'
               f'<figcaption>{html.escape(figure.caption)}{missing}</figcaption>'
               f'<p class="files">{_files(figure.name, (*PICTURES, "csv"))}</p></figure>')
    if figure.name.startswith("curves_"):
        return f'<details class="group" id="{name}"><summary>{title}</summary>{content}</details>'
    return f'<section id="{name}"><h2>{title}</h2>{content}</section>'


def _files(name: str, kinds: Sequence[str]) -> str:
    return "".join(f'<a href="{html.escape(urllib.parse.quote(name))}.{kind}">{kind.upper()}</a>' for kind in kinds)


def _payload(figures: Sequence[Figure]) -> str:
    """The figures as JSON for page.js, in which no tag can end early; every k-th point and the last, if there are too
    many."""
    total = sum(len(trace.x) for figure in figures for panel in figure.panels for series in panel.series
                for trace in series.traces)
    every = max(1, math.ceil(total / MOST_POINTS))
    value = {"dashes": DASHES, "figures": [_figure_data(figure, every) for figure in figures]}
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _figure_data(figure: Figure, every: int) -> dict[str, Any]:
    panels = [{
        "title": panel.title, "y_title": panel.y_title, "percent": panel.percent, "references": dict(panel.references),
        "y_max": panel.y_max if math.isfinite(panel.y_max) else None,
        "series": [{"name": series.name, "style": series.style, "shade_best": series.shade_best,
                    "traces": [_trace_data(trace, every) for trace in series.traces]} for series in panel.series],
    } for panel in figure.panels]  # fmt: skip
    return {"x_title": figure.x_title, "scattered": figure.scattered, "no_mean": figure.no_mean,
            "log_x": figure.log_x, "log_y": figure.log_y, "panels": panels}


def _trace_data(trace: Trace, every: int) -> dict[str, Any]:
    last = len(trace.x) - 1
    kept = [index for index in range(last + 1) if index % every == 0 or index == last]
    return {"label": trace.label, "seed": trace.seed, "status": trace.status, "fitted": trace.fitted,
            "x": [int(x) if x == int(x) else x for x in trace.x[kept].tolist()],
            "y": [None if y != y else float(f"{y:.5g}") for y in trace.y[kept].tolist()]}


def _listing(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{html.escape(title)}</h2>\n<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
