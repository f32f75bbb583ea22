"""What the README shows: its examples run, and its numbers are those of the committed records."""

import json
import pathlib
import re

import numpy as np
import pytest

from rethinking import randomize
from rethinking.data import arrays

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODELS = {
    "Inception (small)": "inception",
    "AlexNet (small)": "alexnet",
    "MLP 3x512": "mlp_3x512",
    "MLP 1x512": "mlp_1x512",
}


@pytest.fixture
def examples():
    """The Python blocks of README, in order."""
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_randomization_as_a_library(examples):
    digits = arrays.load("digits")
    names = {"x_train": digits.train.images, "y_train": digits.train.labels}
    names |= {"x_test": digits.test.images}
    exec(examples[0], names)
    changed = names["random_labels"] != names["y_train"]
    assert abs(changed.mean() - 0.9) < 0.03  # a new label is the old one in a tenth of all cases
    for pixels, found, found_test in (
        ("shuffled", names["shuffled"], names["shuffled_test"]),
        ("gaussian", names["noise"], names["noise_test"]),
    ):
        run = randomize.apply(digits, 1.0, pixels, 0)  # what a run with these settings has
        np.testing.assert_array_equal(found, run.train.images)
        np.testing.assert_array_equal(found_test, run.test.images)
        np.testing.assert_array_equal(names["random_labels"], run.train.labels)


def test_the_kernel_solve(examples):
    digits = arrays.load("digits")
    x, x_test = (split.images[:300].reshape(300, -1) / 255 for split in (digits.train, digits.test))
    names = {"x": x, "labels": digits.train.labels[:300], "x_test": x_test}
    exec(examples[1], names)
    assert np.mean(names["predicted"] == digits.test.labels[:300]) > 0.6


def mean_percent(row, field):
    """The mean of a field over the committed seeds of a row of Table 1, in percent, as text."""
    records = [*(ROOT / "results" / "table1" / row).rglob("result.json")]
    if not records:
        return "not run yet"
    mean = 100 * np.mean([json.loads(record.read_text())[field] for record in records])
    return f"{mean:.2f}"


@pytest.mark.parametrize("title, model", MODELS.items())
def test_the_table_of_accuracies_is_that_of_the_records(title, model):
    (line,) = re.findall(rf"^\| {re.escape(title)} \|(.*)\|$", README, re.MULTILINE)
    shown = [cell.partition("(")[0].strip() for cell in line.split("|")]
    measured = [
        mean_percent(row, field)
        for row in (model, f"{model}+random_labels")
        for field in ("train_accuracy", "test_accuracy")
    ]
    assert shown == measured
