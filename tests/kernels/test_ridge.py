"""The choice of a ridge against dense NumPy, and what it refuses."""

from collections import namedtuple

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from rethinking import sharding
from rethinking.errors import InputError
from rethinking.kernels import cholesky, gram, ridge, systems

ONE = sharding.device_mesh(1, "rows")
KERNEL = gram.Gaussian(1.5)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images[:300] / 16, labels[:300]


def make_system(kernel, x):
    with jax.enable_x64(True):
        return systems.KernelSystem(kernel, x, cholesky.make_backend(len(x), "float64", ONE))


def test_errors_are_those_of_dense_solutions(digits, monkeypatch):
    monkeypatch.setattr(ridge, "RIDGES", (1e-3, 0.3, 3.0))
    x, labels = digits
    errors = ridge.errors(make_system(KERNEL, x), x, labels, 10, seed=4)
    rows = np.random.default_rng(4).permutation(300)
    fitted, held_out = rows[:200], rows[200:]
    matrix, targets = KERNEL(x[fitted], x[fitted]), np.eye(10)[labels[fitted]]
    for value in (1e-3, 0.3, 3.0):  # The kernel's diagonal is 1.
        alpha = np.linalg.solve(matrix + value * np.eye(200), targets)
        outputs = KERNEL(x[held_out], x[fitted]) @ alpha
        assert errors[value] == np.mean(outputs.argmax(1) != labels[held_out])
    assert errors.keys() == {1e-3, 0.3, 3.0}


def test_ridges_are_in_units_of_the_diagonal(digits, monkeypatch):
    class Larger:
        def __call__(self, x, z):
            return 1000 * KERNEL(x, z)

    x, labels = digits
    monkeypatch.setattr(ridge, "RIDGES", (0.3,))
    plain, larger = (
        ridge.errors(make_system(kernel, x), x, labels, 10, seed=0) for kernel in (KERNEL, Larger())
    )
    assert plain == larger


def test_too_small_ridges_are_left_out_and_an_indefinite_matrix_is_refused(digits, monkeypatch):
    x, labels = digits

    class Shifted:
        """Has the eigenvalue -0.1 on pairs of equal examples, for a diagonal of 1."""

        def __call__(self, x, z):
            return np.where(gram.squared_distances(x, z) == 0, 1.0, 1.1)

    monkeypatch.setattr(ridge, "RIDGES", (0.01, 0.2))
    assert ridge.errors(make_system(Shifted(), x), x, labels, 10, seed=0).keys() == {0.2}
    monkeypatch.setattr(ridge, "RIDGES", (0.01, 0.02))
    with pytest.raises(InputError, match=r"any ridge up to 0\.02"):
        ridge.errors(make_system(Shifted(), x), x, labels, 10, seed=0)


@pytest.mark.parametrize(
    "n, split", [(3, (2, 1)), (300, (200, 100)), (12_000, (8_000, 4_000)), (60_000, (8_000, 4_000))]
)
def test_a_third_is_held_out_and_at_most_four_thousand(n, split):
    assert ridge.split(n) == split


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_examples_to_hold_one_out_are_refused(n, digits):
    x, labels = digits
    with pytest.raises(InputError, match=f"choosing the ridge on {n} examples: .* at least 3"):
        ridge.errors(make_system(KERNEL, x[:n]), x[:n], labels[:n], 10, seed=0)


def test_a_matrix_that_is_not_finite_and_labels_that_do_not_fit_are_refused(digits):
    x, labels = digits
    overflows = gram.Polynomial(2_000, 10.0)
    with pytest.raises(InputError, match="not finite"):
        ridge.errors(make_system(overflows, x), x, labels, 10, seed=0)
    for wrong, said in (
        (labels[:200], "for 300"),
        (labels + 1, "label 10 of"),
        (labels - 1, "label -1"),
    ):
        with pytest.raises(InputError, match=said):
            ridge.errors(make_system(KERNEL, x), x, wrong, 10, seed=0)


@pytest.mark.parametrize("features, needed", [(True, 2.5 * 8 * 300**2), (False, 4.25 * 8 * 300**2)])
def test_too_little_memory_is_refused(features, needed, monkeypatch):
    def free(size):
        memory = namedtuple("Memory", "available")(size)
        monkeypatch.setattr("psutil.virtual_memory", lambda: memory)

    free(needed)
    ridge.require_memory(300, features)
    free(needed - 1)
    with pytest.raises(InputError, match="choosing the ridge on 300 examples takes"):
        ridge.require_memory(300, features)
