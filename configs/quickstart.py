"""The randomization tests in a minute: an MLP on scikit-learn's bundled handwritten digits, nothing to download.

    python -m launch.sweep --config=configs/quickstart.py --workdir=runs --seeds=3 --report

A row is a setting of section 2.1. The network fits every one of them; with true labels (and with the pixels
shuffled, which an MLP cannot notice) it also generalizes, with random labels it is as good as chance, 10%.
Takes half a minute on two CPU cores, all rows and three seeds. The learning rate falls more slowly than on CIFAR10,
by 0.98 an epoch, because an epoch is 44 steps instead of 390.
"""

from rethinking import rows

ROWS = rows.QUICKSTART_ROWS


def get_config(row: str = "true_labels"):
    return rows.quickstart(row)
