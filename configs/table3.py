"""Table 3: test error of linear models that interpolate the whole training set exactly, by one solve.

    python -m rethinking.main --config=configs/table3.py:mnist --workdir=runs/mnist
    python -m launch.sweep --config=configs/table3.py --workdir=runs --report

Rows `mnist` and `cifar10` solve with a Gaussian kernel on the pixels divided by 255, `mnist+gabor` on pooled Gabor
wavelet responses; `cifar10+random_conv` is the linear solution of least norm in the features of 32,000 random filters.
`+ridge` adds the penalty, of those in `rethinking.experiments.kernel_system.RIDGES`, with the least error on held-out
training images. `mnist+random_centers` and `mnist+random_test_labels` interpolate too, do not generalize as well, and have a
larger norm. The last one trains on 50,000 images with their labels and the 10,000 test images with random ones, so that
its system is as large as the others'. Random centers, four for each example, are for 10,000 examples: their system's
condition number grows with the third power of the number of examples, and float64 ends before 60,000.

Bandwidths were chosen on held-out training images: 5 for MNIST (exp(-0.02 ||x - z||^2), as in public replications),
0.5 for Gabor features, which have unit norm, and 7 for CIFAR10. In float64 a row of MNIST takes 15 GB and some minutes
on two CPU cores; 32,000 random filters want an accelerator: 2,000 of them took an hour and a half.
"""

from rethinking import rows

ROWS = rows.TABLE3_ROWS


def get_config(row: str = "mnist"):
    return rows.table3(row)
