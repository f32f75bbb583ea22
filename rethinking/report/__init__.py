"""Tables, figures and a page from run directories, and from nothing else.

python -m rethinking.report --runs=DIR[,DIR...] --output=DIR [--watch]
"""

import os
import pathlib
import time
from collections.abc import Iterator, Sequence

from rethinking.errors import InputError
from rethinking.report import audit, collect, figures, findings, formats, page, tables, vega


def build(runs: Sequence[str | os.PathLike], output: str | os.PathLike) -> str:
    """Findings, tables that have runs, and answers of audits, as Markdown; writes the report.

    The files in `output` are index.html (everything in one file), report.md (for GitHub), rows.csv
    (the numbers of all tables), and each figure as PNG, SVG, PDF and CSV. Runs may be unfinished,
    missing or broken: the report says which. The same runs give the same files, except that the
    order of objects in a PDF varies. Raises InputError if one of `runs` is not a folder, or if
    `output` cannot be written.
    """
    output = pathlib.Path(output)
    content = gather(runs)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _write(output / "rows.csv", formats.to_csv(content.tables))
        for figure in content.figures:
            _write(output / f"{figure.name}.csv", formats.figure_to_csv(figure))
            for ending, picture in vega.render(content.specs[figure.name]).items():
                (output / f"{figure.name}.{ending}").write_bytes(picture)
        _write(output / "report.md", formats.to_report(content))
        _write(output / "index.html", page.render(content, output))
    except OSError as error:
        raise InputError(
            f"--output={output} cannot be written: {error.strerror}. Choose another folder."
        ) from error
    if not content.collection.runs:
        return "No runs.\n"
    shown = [formats.to_markdown(table) for table in content.tables if table.runs]
    answers = map(str, content.answers)  # last, where a reader of the terminal looks first
    return "\n".join([*content.findings, "", *shown, *answers])


def gather(runs: Sequence[str | os.PathLike]) -> formats.Content:
    """What the report on all run directories found below `runs` says and shows."""
    collection = collect.collect(runs)
    found = findings.table(collection)
    made = tables.make(collection)
    drawn = figures.make(collection)
    return formats.Content(
        answers=audit.answers(collection),
        findings=findings.sentences(found, collection),
        tables=[found, *made] if found.rows else made,
        figures=drawn,
        specs={figure.name: vega.to_spec(figure) for figure in drawn},
        collection=collection,
    )


def watch(
    runs: Sequence[str | os.PathLike], output: str | os.PathLike, seconds: float = 2.0
) -> Iterator[str]:
    """What `build` returns, now and whenever run directories below `runs` have changed. Never ends.

    Waits `seconds` between looks, and longer if a report takes long, so that training goes on.
    """
    before = None
    while True:
        start = time.monotonic()
        now = collect.state(runs)
        if now != before:
            before = now
            yield build(runs, output)
        time.sleep(max(seconds, 4 * (time.monotonic() - start)))


def _write(file: pathlib.Path, text: str) -> None:
    # A folder's name may hold bytes that are not UTF-8.
    file.write_text(text, encoding="utf-8", errors="replace", newline="")
