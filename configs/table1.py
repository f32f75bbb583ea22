"""Table 1: accuracy of five networks on CIFAR10, with true and with random labels.

    python -m rethinking.main --config=configs/table1.py:mlp_1x512+random_labels --workdir=runs/mlp
    python -m launch.sweep --config=configs/table1.py --workdir=runs --seeds=3 --report

A row is MODEL[+crop][+wd][+random_labels]. Every network fits its training set, also with random
labels. Only the test accuracy shows whether the labels were true. Regularizers change it by a few
points.

On two CPU cores a row takes minutes (MLPs), 2 to 4 hours (AlexNet) or an estimated 20 to 34 hours
(Inception). Settings: `rethinking.settings.cifar10`.
"""

from rethinking import rows

ROWS = rows.TABLE1_ROWS
TELLING = rows.TABLE1_TELLING


def get_config(row: str = "mlp_1x512"):
    return rows.table1(row)
