"""The page: one HTML file with findings, tables, figures and every run, which needs no network.

Vega-Lite, which is part of the page, draws the figures in the browser: see page.js.
"""

import functools
import json
import os
import pathlib
import string
import urllib.parse
from collections.abc import Iterator, Sequence
from html import escape

from rethinking.report import vega
from rethinking.report.audit import Answer
from rethinking.report.collect import FILES, slug
from rethinking.report.columns import RUNS, Column, Row
from rethinking.report.curves import Figure
from rethinking.report.formats import Content, remarks
from rethinking.report.paper import MISSING
from rethinking.report.run import Run
from rethinking.report.settings import command
from rethinking.report.tables import Table

_PARTS = pathlib.Path(__file__).parent


def render(content: Content, output: pathlib.Path) -> str:
    """The page as HTML. Its links to run directories are relative to the folder `output`."""
    tables = [table for table in content.tables if table.runs]
    figures = [one for one in content.figures if not one.is_curves]
    curves = [one for one in content.figures if one.is_curves]
    runs = _Runs(output)
    body = [_table(table, runs) for table in tables]
    body += [_figure(figure) for figure in figures]
    if curves:
        body.append("<h2>Learning curves</h2>")
    body += [_figure(figure) for figure in curves]
    flags = remarks(content)
    body += [f"<h2>{escape(title)}</h2>{_list(items)}" for title, items in flags.items()]
    body.append(runs.render())
    return string.Template(_part("html")).substitute(
        style=_colours() + _part("css"),
        script=_part("js"),
        vega=_vega(),
        specs=json.dumps(content.specs, separators=(",", ":")).replace("<", "\\u003c"),
        findings=_answers(content.answers) + _list(content.findings),
        links=_links(tables, figures, curves),
        body="\n".join(filter(None, body)),
    )


def _part(kind: str) -> str:
    return (_PARTS / f"page.{kind}").read_text(encoding="utf-8")


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert  # here, because only this needs it

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def _colours() -> str:
    """The rules that replace the figures' colours on dark pages."""
    rules = []
    for light, dark in vega.COLOURS.items():
        for part in ("stroke", "fill"):
            rules.append(f'.chart [{part}="{light}"] {{ {part}: light-dark({light}, {dark}); }}')
    return "\n".join([*rules, ""])


def _links(tables: Sequence[Table], figures: Sequence[Figure], curves: Sequence[Figure]) -> str:
    """Links to the parts of the page, in groups."""
    groups = {
        "Tables": [(_anchor(table), table.title.partition(":")[0]) for table in tables],
        "Figures": [(figure.name, figure.short) for figure in figures],
        "Curves": [(figure.name, figure.short) for figure in curves],
    }
    lines = []
    for group, links in groups.items():
        if links:
            texts = [f'<a href="#{escape(to)}">{escape(text)}</a>' for to, text in links]
            lines.append(f"<p><b>{group}</b> {' '.join(texts)}</p>")
    return "\n".join(lines)


def _anchor(table: Table) -> str:
    return f"table-{slug(table.name)}"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _answers(answers: Sequence[Answer]) -> str:
    """The questions of audits in bold, each with its answer."""
    lines = []
    for answer in answers:
        if answer.question:
            lines.append(f"<p><b>{escape(answer.question)}</b> {escape(answer.text)}</p>")
        else:
            lines.append(f"<h3>{escape(answer.text)}</h3>")
    return "\n".join([*lines, ""])


def _table(table: Table, runs: "_Runs") -> str:
    header = "".join(f'<th scope="col">{escape(one.header)}</th>' for one in table.columns)
    rows, notes = [], table.notes
    for row in table.rows:
        anchor = runs.add(table, row) if row.runs else ""
        first, *others = table.cells(row)
        name = _breakable(first)
        if row.notes:
            name += f" <sup>{', '.join(str(notes[note]) for note in row.notes)}</sup>"
        cells = ""
        for column, cell in zip(table.columns[1:], others, strict=True):
            cells += _cell(cell, anchor, column)
        kind = "" if row.runs else " class=missing"
        rows.append(f'<tr{kind}><th scope="row">{name}</th>{cells}</tr>')
    legend = escape(table.legend)
    for note, number in notes.items():
        legend += f"<br><sup>{number}</sup> {escape(note)}"
    return (
        f'<section id="{escape(_anchor(table))}"><h2>{escape(table.title)}</h2>\n'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{header}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + f'</tbody></table></div>\n<p class="legend">{legend}</p>'
        '<p class="files"><a href="rows.csv">CSV of all tables</a></p></section>'
    )


def _breakable(name: str) -> str:
    return escape(name).replace("+", "+<wbr>")


def _cell(text: str, anchor: str, column: Column) -> str:
    kinds = {"≈": "within", "≠": "outside"}
    kind = "paper" if column.header.endswith("paper") else kinds.get(text[:1], "")
    content = escape(text)
    if anchor and text != MISSING and (column.field or column is RUNS):
        content = f'<a href="#{anchor}" data-runs>{content}</a>'
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


class _Runs:
    """The list of the runs behind each row of a table: their numbers, files and commands."""

    def __init__(self, output: pathlib.Path):
        self._output = output.resolve()
        self._sections = []

    def add(self, table: Table, row: Row) -> str:
        """The anchor of a row's runs, which it adds."""
        anchor = f"runs-{len(self._sections)}"
        shown = [column for column in table.columns if column.field]
        names = [column.header for column in shown]
        header = ["run", "files", "status", *names, "seconds", "device", "revision"]
        lines = ["".join(f"<th>{escape(text)}</th>" for text in header)]
        commands = []
        for run in row.runs:
            texts = [run.status]
            for column in shown:
                value = column.value(run)
                texts.append(MISSING if value is None else column.show(value))
            seconds = run.value("seconds")
            texts.append(MISSING if seconds is None else f"{seconds:.0f}")
            texts += [str((run.result or {}).get("device", MISSING)), run.revision]
            name = f"<th>{_breakable(f'seed {run.seed} of {run.row}')}</th>"
            files = f"<td>{' '.join(self._links(run))}</td>"
            lines.append(name + files + "".join(f"<td>{escape(one)}</td>" for one in texts))
            commands.append(f"<pre><code>{escape(command(run))}</code></pre>")
        title = escape(f"{table.title.partition(':')[0]}: {row.name}")
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._sections.append(
            f'<section id="{anchor}"><h3>{title}</h3>'
            f'<div class="scroll"><table>{body}</table></div>'
            f"<p>Made by:</p>{''.join(commands)}</section>"
        )
        return anchor

    def _links(self, run: Run) -> Iterator[str]:
        for file in FILES:
            path = run.path.resolve() / file
            if path.exists():
                relative = pathlib.Path(os.path.relpath(path, self._output)).as_posix()
                address = escape(urllib.parse.quote(os.fsencode(relative)))
                yield f'<a href="{address}">{file.partition(".")[0]}</a>'

    def render(self) -> str:
        """The list, folded."""
        if not self._sections:
            return ""
        summary = "<summary>All runs, their configs and commands</summary>"
        return f'<details class="group">{summary}{"".join(self._sections)}</details>'


def _figure(figure: Figure) -> str:
    """A figure under its title; learning curves are folded."""
    title, name = escape(figure.title), escape(figure.name)
    address = escape(urllib.parse.quote(figure.name))
    files = ""
    for ending in ("png", "svg", "pdf", "csv"):
        files += f'<a href="{address}.{ending}">{ending.upper()}</a>'
    drawn = (
        f'<figure><div class="chart" data-figure="{name}"></div>'
        f'<label class="switch"><input type="checkbox" class="log"> logarithmic y axis</label>'
        f'<noscript><img src="{name}.svg" alt="{title}"></noscript>'
        f"<figcaption>{escape(figure.caption)}</figcaption>"
        f'<p class="files">{files}</p></figure>'
    )
    if figure.is_curves:
        summary = f"<summary>{title}</summary>"
        return f'<details class="group" id="{name}">{summary}{drawn}</details>'
    return f'<section id="{name}"><h2>{title}</h2>{drawn}</section>'
