"""What the README shows, run."""

import pathlib
import re

import numpy as np

from rethinking.data import arrays


def test_library_example_runs():
    text = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    digits = arrays.load("digits")
    x, x_test = (split.images[:300].reshape(300, -1) / 255 for split in (digits.train, digits.test))
    names = {"x": x, "labels": digits.train.labels[:300], "x_test": x_test}
    exec(example, names)
    assert np.mean(names["predicted"] == digits.test.labels[:300]) > 0.6


def test_measured_tables_agree_with_the_records():
    """Every row of README's table of results is one of the committed report's."""
    root = pathlib.Path(__file__).parent.parent
    _, shown = (root / "README.md").read_text().split("## What it shows")

    def rows(text):
        lines = re.findall(r"^\| (mlp|alexnet|inception)(.*)\|$", text, re.MULTILINE)
        return [tuple(cell.strip() for cell in (name + rest).split("|")) for name, rest in lines]

    tables = [(root / f"results/report/{name}.md").read_text() for name in ("table1", "table4")]
    shown_rows = rows(shown.split("\n## ")[0])
    assert shown_rows
    assert set(shown_rows) <= {row for table in tables for row in rows(table)}
