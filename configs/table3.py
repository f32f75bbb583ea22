"""Table 3: test error of linear models that interpolate the whole training set, by one solve.

    python -m rethinking.main --config=configs/table3.py:mnist --workdir=runs/mnist
    python -m launch.sweep --config=configs/table3.py --workdir=runs --report

- `mnist`, `cifar10`: a Gaussian kernel on the pixels divided by 255.
- `mnist+gabor`: a Gaussian kernel on pooled responses of Gabor wavelets.
- `cifar10+random_conv`: the linear solution of least norm in the features of 32,000 random filters.
- `+ridge`: adds a penalty, chosen by the error on held-out training images.
- `mnist+random_centers`, `mnist+random_test_labels`: two more interpolating solutions. They
  generalize less well and have a larger norm. The second trains on 50,000 images with their labels
  and on the 10,000 test images with random ones.

In float64 a row of MNIST takes 16 GB and 20 minutes on a CPU core. 32,000 random filters need an
accelerator: 2,000 of them took an hour and a half on a core. On an H200 they take 12 GB and at
least half a minute. This is counted by `launch.compile`, not measured. Settings:
`rethinking.rows.table3`.
"""

from rethinking import rows

ROWS = rows.TABLE3_ROWS


def get_config(row: str = "mnist"):
    return rows.table3(row)
