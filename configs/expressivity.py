"""Section 4: a network built to reproduce random labels, with twice as many weights as there are images.

    python -m rethinking.main --config=configs/expressivity.py:cifar10 --workdir=runs/theorem1
    python -m launch.sweep --config=configs/expressivity.py --workdir=runs --seeds=3

Rows `cifar10` and `mnist` are Theorem 1 on all training images: two layers, 2n + d weights, targets the labels as
numbers; with `+one_hot` a vector for each class, and n weights more for each further one. Rows `depth=K` are Corollary
1 on 10,000 images of CIFAR10. In float64 every label comes out right; in float32 that takes depth, or fewer images: see
`rethinking.theory.expressivity`. A row takes half a minute on two CPU cores.
"""

from rethinking import rows

ROWS = rows.EXPRESSIVITY_ROWS


def get_config(row: str = "cifar10"):
    return rows.expressivity(row)
