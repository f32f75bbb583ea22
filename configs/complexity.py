"""Section 2.2: Rademacher complexity, VC dimension and uniform stability of real networks.

    python -m rethinking.main --config=configs/complexity.py:rademacher+mlp_1x512 \\
        --workdir=runs/rademacher
    python -m rethinking.main --config=configs/complexity.py:stability+mlp_1x512+random_labels \\
        --workdir=runs/stability

None of the three explains why the networks generalize.

Row `rademacher+MODEL` trains MODEL with two classes on random signs of CIFAR10 images, five draws
for each of 8,000, 4,000, ... and 125 images. The estimate is 1, the largest possible value, so it
gives no useful bound on the test error. This holds even for more images than an image has values
(3,072), where linear models no longer fit. The result also has closed forms for the unit ball of a
Gaussian kernel and for linear models, the latter for up to 32,000 images:
`rethinking.theory.complexity` says how they are scaled.

Row `stability+MODEL[+random_labels]` trains on 5,000 images twice, and five times with one of them
replaced, from the same start and in the same order. After every epoch it measures how much the
losses on these images and on 5,000 test images change.

Settings are those of Table 1, except for batches of 32. There are fewer images, and smaller batches
keep the number of steps high. An MLP takes minutes a row on two CPU cores. The convolutional
networks need an accelerator.
"""

from rethinking import rows

ROWS = rows.COMPLEXITY_ROWS


def get_config(row: str = "rademacher+mlp_1x512"):
    return rows.complexity(row)
