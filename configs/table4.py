"""Table 4: fitting random labels with a regularizer (section 3; the published version's Table 4).

    python -m launch.sweep --config=configs/table4.py --workdir=runs --seeds=3 --report

A row is MODEL[+crop][+wd]+random_labels[+augment]. Explicit regularization does not stop
memorization: in the paper all networks but AlexNet with weight decay still fit random labels.
Settings and times: as in configs/table1.py.
"""

from rethinking import rows

ROWS = rows.TABLE4_ROWS


def get_config(row: str = "mlp_1x512+wd+random_labels"):
    return rows.table4(row)
