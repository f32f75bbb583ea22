"""Reading a table of the report: its rows and its numbers."""

import functools
import re

from rethinking.report import collect, formats, tables


def made(root):
    """The tables by name. They are made anew when a file below `root` changes."""
    return _made(root, tuple(sorted(collect.state([root]).items())))


@functools.lru_cache(maxsize=1)
def _made(root, state):
    return {table.name: table for table in tables.make(collect.collect([root]))}


def number_of(root, table, name, header):
    """The cell of a row under a header; None if the table has no such column."""
    found = made(root)[table]
    (row,) = [row for row in found.rows if row.name == name]
    headers = [column.header for column in found.columns]
    return found.cells(row)[headers.index(header)] if header in headers else None


def row_of(root, table, name):
    """The cells of one row of a rendered Markdown table of the runs in a folder."""
    return row_in(made(root)[table], name)


def row_in(table, name):
    """The cells of one row of a table, rendered in Markdown."""
    for line in formats.to_markdown(table).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0] == name:
            return cells
    raise AssertionError(f"no row {name}")
