"""Section 5: a linear system has many solutions, and SGD from zero finds one that generalizes.

    python -m rethinking.main --config=configs/linear.py:mnist+fourier --workdir=runs/linear
    python -m launch.sweep --config=configs/linear.py --workdir=runs

A run computes three solutions that fit every training label: the one of minimum norm, the one that
SGD finds from a random start, and one that also fits random labels of the test images. It runs
literal SGD from zero and from the random start, and measures the distance to the first two
solutions. It also compares the curvature of the risk at the solutions.

Row `mnist` uses the pixels of 100 images, `mnist+fourier` uses 2,000 random Fourier features of 500
images, and `mnist+fourier+random_labels` the same with random training labels. With `mnist+fourier`
the test error is 11% at minimum norm, 61% from the random start and 90% with the random test
labels. The norms are 20, 124 and 136. The Hessian is the same matrix at all three, up to rounding.
SGD ends at a distance of less than 1e-7 from its limit, relative to the distance at the start. With
random training labels all three solutions are at chance, and the minimum norm is 38. A row takes up
to two minutes on two CPU cores.
"""

from rethinking import rows

ROWS = rows.LINEAR_ROWS


def get_config(row: str = "mnist+fourier"):
    return rows.linear(row)
