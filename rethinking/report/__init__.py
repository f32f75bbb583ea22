"""Tables, figures and a page from run directories, and from nothing else.

    python -m rethinking.report --runs=DIR[,DIR...] --output=DIR [--watch]
"""

import os
import pathlib
import time
from collections.abc import Iterator, Sequence

from rethinking.errors import InputError
from rethinking.report import collect, draw, figures, formats, page, tables


def build(runs: Sequence[str | os.PathLike], output: str | os.PathLike) -> str:
    """Writes the report on all run directories found below `runs` into the folder `output`.

    That is: index.html (everything in one file), report.md (tables and figures, as GitHub shows them), each table as
    Markdown and LaTeX, rows.csv, and each figure as PNG, SVG, PDF and CSV. Runs may be unfinished, missing or broken;
    the report says which. Same runs, same files. Returns the tables that have runs, as Markdown. Raises InputError if
    one of `runs` is no folder, or if `output` cannot be written.
    """
    output = pathlib.Path(output)
    collection = collect.collect(runs)
    made, drawn = tables.make(collection), figures.make(collection)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for table in made:
            name = collect.slug(table.name)
            _write(output / f"{name}.md", formats.to_markdown(table))
            _write(output / f"{name}.tex", formats.to_latex(table))
        _write(output / "rows.csv", formats.to_csv(made))
        draw.draw(drawn, output)
        _write(output / "report.md", formats.to_report(made, drawn))
        _write(output / "index.html", page.render(collection, made, drawn, output))
    except OSError as error:
        raise InputError(f"--output={output} cannot be written: {error.strerror}. Choose another.") from error
    return "\n".join(formats.to_markdown(table) for table in made if table.runs) or "No runs.\n"


def watch(runs: Sequence[str | os.PathLike], output: str | os.PathLike, seconds: float = 2.0) -> Iterator[str]:
    """Calls `build`, and again whenever run directories below `runs` have changed; yields what it returns. Never ends.

    Looks every `seconds` seconds, or more seldom if a report takes long, so that training beside it is hardly slowed.
    """
    before = None
    while True:
        now, start = collect.state(runs), time.monotonic()
        if now != before:
            before = now
            yield build(runs, output)
        time.sleep(max(seconds, 4 * (time.monotonic() - start)))


def _write(file: pathlib.Path, text: str) -> None:
    # A folder's name may hold bytes that are no UTF-8.
    file.write_text(text, encoding="utf-8", errors="replace", newline="")
