"""What asynchronous workers change: the same network trained by SGD with gradients that come late.

    python -m launch.sweep --config=configs/figure_async.py --workdir=runs --rows=mlp_1x512 --seeds=3 --report

A row is MODEL+workers=N. The paper's ImageNet networks were trained by 50 asynchronous workers, and data-parallel SGD
stands in for them here. With N workers that take turns, the gradient applied at step t is that of the parameters at
step t - N + 1 (`rethinking.training.optim.delayed_gradients`); one worker is ordinary SGD. With the learning rates of
configs/table1.py late gradients make the MLP diverge, 8 workers' as well as 50's. So all rows have 0.03 of them, at
which 50 workers train, and which does not decay. Everything else is as in configs/table1.py. The MLP takes ten minutes
a row on a CPU core; Inception, whose rate has not been tried, wants an accelerator.
"""

from rethinking import config, rows

MODELS = ("mlp_1x512", "inception")
ROWS = tuple(f"{model}+workers={workers}" for model in MODELS for workers in (1, 8, 50))


def get_config(row: str = "mlp_1x512+workers=8"):
    model, plus, workers = row.partition("+workers=")
    if model not in rows.TABLE1_MODELS or not (plus and workers.isdecimal() and int(workers)):
        raise config.ConfigError(f"figure_async: unknown row {row!r}. {config.nearest(row, ROWS)}")
    row_config = rows.cifar10(model)
    row_config.update(workers=int(workers), learning_rate=0.03 * row_config.learning_rate, decay_per_epoch=1.0)
    return rows.named(row_config, "figure_async", row)
