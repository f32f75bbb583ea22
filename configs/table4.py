"""Table 4: fitting random labels with a regularizer switched on (section 3; the published version's Table 4).

    python -m launch.sweep --config=configs/table4.py --workdir=runs --seeds=3 --report

Explicit regularization does not stop memorization: all but AlexNet with weight decay still fit random labels.
Row grammar, settings and times as in configs/table1.py.
"""

from rethinking import rows

ROWS = rows.TABLE4_ROWS


def get_config(row: str = "mlp_1x512+wd+random_labels"):
    return rows.table4(row)
