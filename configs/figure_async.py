"""What asynchronous workers change: the same network trained by SGD with gradients that come late.

    python -m launch.sweep --config=configs/figure_async.py --workdir=runs --rows=mlp_1x512 --seeds=3 --report

A row is MODEL+workers=N. The paper's ImageNet networks were trained by 50 asynchronous workers, and data-parallel SGD
stands in for them here. With N workers that take turns, the gradient applied at step t is that of the parameters at
step t - N + 1 (`rethinking.training.optim.delayed_gradients`); one worker is ordinary SGD. With the learning rates of
configs/table1.py late gradients make the MLP diverge, 8 workers' as well as 50's. So all rows have 0.03 of them, at
which 50 workers train, and which does not decay. Everything else is as in configs/table1.py. The MLP takes ten minutes
a row on a CPU core; Inception, whose rate has not been tried, wants an accelerator.
"""

from rethinking import rows

ROWS = rows.FIGURE_ASYNC_ROWS


def get_config(row: str = "mlp_1x512+workers=8"):
    return rows.figure_async(row)
