"""Tables, figures and a page from run directories, and from nothing else.

    python -m rethinking.report --runs=DIR[,DIR...] --output=DIR
"""

import os
import pathlib
from collections.abc import Sequence

from rethinking.config import ConfigError
from rethinking.report import collect, figures, page, tables


def build(runs: Sequence[str | os.PathLike], output: str | os.PathLike) -> str:
    """Writes the report on all run directories found below `runs` into the folder `output`.

    That is: index.html (everything in one file), a Markdown file per table, rows.csv, and the figures as PNG and SVG.
    Runs may be unfinished, missing or broken; the report says which. Returns the tables that have runs, as Markdown.
    Raises ConfigError if one of `runs` is no folder, or if `output` cannot be written.
    """
    output = pathlib.Path(output)
    collection = collect.collect(runs)
    made = tables.make(collection)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for table in made:
            (output / f"{collect.slug(table.name)}.md").write_text(tables.to_markdown(table), encoding="utf-8")
        (output / "rows.csv").write_text(tables.to_csv(made), encoding="utf-8", newline="")
        drawn = figures.draw([run for run in collection.runs if run.kind == "training"], output)
        (output / "index.html").write_text(page.render(collection, made, drawn, output), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output={output} cannot be written: {error.strerror}. Choose another.") from error
    return "\n".join(tables.to_markdown(table) for table in made if table.runs) or "No runs.\n"
