"""What asynchronous workers change: a network trained by SGD with late gradients.

    python -m launch.sweep --config=configs/figure_async.py --workdir=runs --rows=mlp_1x512 \\
        --seeds=3 --report

A row is MODEL+workers=N. The paper trained on ImageNet with 50 asynchronous workers. This project
uses data-parallel SGD instead, and these rows show the difference. With N workers that take turns,
step t applies the gradient of the parameters at step t - N + 1. One worker is ordinary SGD. See
`rethinking.training.optim.delayed_gradients`.

The MLP takes ten minutes a row on a CPU core. Inception needs an accelerator, and its learning rate
has not been tried. Settings: `rethinking.rows.figure_async`.
"""

from rethinking import rows

ROWS = rows.FIGURE_ASYNC_ROWS


def get_config(row: str = "mlp_1x512+workers=8"):
    return rows.figure_async(row)
