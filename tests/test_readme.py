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
