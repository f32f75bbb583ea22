"""Section 4: networks that are built to reproduce random labels.

    python -m rethinking.main --config=configs/expressivity.py:cifar10 --workdir=runs/theorem1
    python -m launch.sweep --config=configs/expressivity.py --workdir=runs --seeds=3

Rows `cifar10` and `mnist` build the network of Theorem 1 for all training images. It has two layers
and 2n + d weights, about twice as many as there are images. Its targets are the labels as numbers.
With `+one_hot` the targets are one-hot vectors, which take n more weights for each further class.
Rows `depth=K` build the networks of Corollary 1 for 10,000 images of CIFAR10.

In float64 every label comes out right. In float32 that takes more depth or fewer images: see
`rethinking.theory.expressivity`. A row takes half a minute on two CPU cores.
"""

from rethinking import rows

ROWS = rows.EXPRESSIVITY_ROWS


def get_config(row: str = "cifar10"):
    return rows.expressivity(row)
