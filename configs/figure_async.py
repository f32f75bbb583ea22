"""What asynchronous workers change: the same network trained by SGD with gradients that come late.

    python -m launch.sweep --config=configs/figure_async.py --workdir=runs --rows=mlp_1x512 --seeds=3 --report

A row is MODEL+workers=N. The paper's ImageNet networks were trained by 50 asynchronous workers, and data-parallel SGD
stands in for them here. With N workers that take turns, the gradient applied at step t is that of the parameters at
step t - N + 1 (`rethinking.training.optim.delayed_gradients`); one worker is ordinary SGD. Everything else is as in
configs/table1.py, where late gradients make the MLP diverge: results/NOTES.md says which learning rates do not
(--config.learning_rate=0.0001 with 50 workers). The MLP takes some minutes a row on two CPU cores, with 50 workers an
hour; Inception wants an accelerator.
"""

from rethinking import config

MODELS = ("mlp_1x512", "inception")
ROWS = tuple(f"{model}+workers={workers}" for model in MODELS for workers in (1, 8, 50))


def get_config(row: str = "mlp_1x512+workers=8"):
    model, plus, workers = row.partition("+workers=")
    if model not in config.TABLE1_MODELS or not (plus and workers.isdecimal() and int(workers)):
        raise config.ConfigError(f"figure_async: unknown row {row!r}. {config.nearest(row, ROWS)}")
    row_config = config.cifar10(model)
    row_config.workers = int(workers)
    return config.named(row_config, "figure_async", row)
