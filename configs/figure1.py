"""Figure 1: learning curves under five randomizations (a), time to fit (b) and test error (c) under label noise.

    python -m launch.sweep --config=configs/figure1.py --workdir=runs --rows=mlp_1x512 --seeds=3 --report

A row is MODEL+SETTING, with SETTING one of true_labels, random_labels, shuffled_pixels, random_pixels, gaussian, or
corrupt=P: labels replaced with probability P. The settings differ in the data alone. The training loss reaches
zero under all of them; the time to fit grows with P by a small factor, the test error up to 90%.
Settings and times as in configs/table1.py, whose runs stand for true_labels and random_labels here.
"""

from rethinking import rows

ROWS = rows.FIGURE1_ROWS


def get_config(row: str = "mlp_1x512+true_labels"):
    return rows.figure1(row)
