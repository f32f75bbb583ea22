"""Table 1: training and test accuracy of five networks on CIFAR10, with true and with random labels.

    python -m rethinking.main --config=configs/table1.py:mlp_1x512+random_labels --workdir=runs/mlp
    python -m launch.sweep --config=configs/table1.py --workdir=runs --seeds=3 --report

A row is MODEL[+crop][+wd][+random_labels]. Every network fits the training set, the random labels included; what
the labels were shows in the test accuracy alone, and regularizers move that by a few points.
Settings and the choices behind them: `rethinking.rows.cifar10`.
The MLPs take some minutes a row on two CPU cores, AlexNet 2.3 hours; Inception wants an accelerator.
"""

from rethinking import rows

ROWS = rows.TABLE1_ROWS


def get_config(row: str = "mlp_1x512"):
    return rows.table1(row)
