"""Figure 1: learning curves under randomization (a), time to fit (b) and test error (c).

    python -m launch.sweep --config=configs/figure1.py --workdir=runs --rows=mlp_1x512 --seeds=3 \\
        --report

A row is MODEL+SETTING. SETTING is true_labels, random_labels, shuffled_pixels, random_pixels,
gaussian, or corrupt=P: labels are replaced with probability P. The rows of one network differ only
in the data. The training loss reaches zero under all settings. As P grows, the time to fit grows by
a small factor, and the test error grows to 90%.

Settings and times: as in configs/table1.py. The runs of Table 1 serve as true_labels and
random_labels here.
"""

from rethinking import rows

ROWS = rows.FIGURE1_ROWS
TELLING = rows.FIGURE1_TELLING


def get_config(row: str = "mlp_1x512+true_labels"):
    return rows.figure1(row)
