"""Figure 1: learning curves under five randomizations (a), time to fit (b) and test error (c) under label noise.

    python -m launch.sweep --config=configs/figure1.py --workdir=runs --rows=mlp_1x512 --seeds=3 --report

A row is MODEL+SETTING, with SETTING one of true_labels, random_labels, shuffled_pixels, random_pixels, gaussian, or
corrupt=P: labels replaced with probability P. The settings differ in the data alone. The training loss reaches
zero under all of them; the time to fit grows with P by a small factor, the test error up to 90%.
Settings and times as in configs/table1.py, whose runs stand for true_labels and random_labels here.
"""

from rethinking import config, rows

MODELS = ("inception", "alexnet", "mlp_1x512")
ROWS = tuple(
    f"{model}+{name}" for model in MODELS for name in (*rows.SETTINGS, *(f"corrupt={p / 10}" for p in range(1, 11)))
)


def get_config(row: str = "mlp_1x512+true_labels"):
    model, plus, name = row.partition("+")
    if model not in rows.TABLE1_MODELS or not plus:
        raise config.ConfigError(f"figure1: unknown row {row!r}. {config.nearest(row, ROWS)}")
    return rows.named(rows.setting(rows.cifar10(model), name), "figure1", row)
