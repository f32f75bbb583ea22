"""Section 2.2: why neither Rademacher complexity, nor VC dimension, nor uniform stability explains generalization.

    python -m rethinking.main --config=configs/complexity.py:rademacher+mlp_1x512 --workdir=runs/rademacher
    python -m rethinking.main --config=configs/complexity.py:stability+mlp_1x512+random_labels --workdir=runs/stability

`rademacher+MODEL` trains MODEL with two classes on random signs of 8,000, 4,000, ... and 125 images of CIFAR10, five
draws of each: the estimate is 1, which bounds nothing, also where there are more images than an image has values
(3,072), so that linear models no longer fit. Beside it stand, in closed form, the unit ball of a Gaussian kernel and
linear models, these on up to 32,000 images: see `rethinking.theory.complexity` for how they are scaled.
`stability+MODEL[+random_labels]` trains on 5,000 images twice, and five times with one of them replaced, in the same
order from the same start; it measures how much losses on them and on 5,000 test images change, epoch by epoch.
Settings are those of Table 1 but for batches of 32, so that fewer images take as many steps. On two CPU cores the MLPs
take minutes a row; the convolutional networks want an accelerator.
"""

from rethinking import rows

ROWS = rows.COMPLEXITY_ROWS


def get_config(row: str = "rademacher+mlp_1x512"):
    return rows.complexity(row)
