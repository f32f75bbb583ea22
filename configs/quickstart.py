"""The randomization tests in a minute: an MLP on handwritten digits that come with the package.

    python -m launch.sweep --config=configs/quickstart.py --workdir=runs --seeds=3 --report

A row is a setting of section 2.1. The network fits the training set in every row. With true labels
it generalizes. With shuffled pixels it does so too, because an MLP does not depend on the order of
the pixels. With random labels its test accuracy is about 10%, as for guessing.

All rows with three seeds take a minute on two CPU cores, with the report.
Settings: `rethinking.rows.quickstart`.
"""

from rethinking import rows

ROWS = rows.QUICKSTART_ROWS


def get_config(row: str = "true_labels"):
    return rows.quickstart(row)
