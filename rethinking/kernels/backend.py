"""The interface to a large symmetric matrix: `blas.py` and `sharded.py` implement it."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from rethinking.kernels.gram import Kernel
from rethinking.kernels.layout import Layout


class Backend(abc.ABC):
    """The lower half of an n x n symmetric matrix in column panels, and what is computed with it.

    A storage holds the matrix, or its Cholesky factor L. Only the backend knows its type. Methods
    may overwrite a storage that they are given; callers must use the returned one. In float64 all
    calls must be made within `jax.enable_x64(True)`.

    Attributes:
        layout: the place of each entry of the matrix.
        dtype: the type of the matrix's entries.
    """

    layout: Layout
    dtype: np.dtype

    @property
    def description(self) -> str:
        """Differs for backends whose storages differ."""
        return f"{type(self).__name__}, {self.layout}, {self.dtype}"

    @abc.abstractmethod
    def working_bytes(self, cores: int | None = None) -> int:
        """Bytes of a device's temporary arrays, for a panel or for a product with the matrix.

        A CPU device has so many `cores`, by default those that this process may use.
        """

    @abc.abstractmethod
    def like(self, n: int) -> "Backend":
        """A backend for an n x n matrix of the same type, on the same devices."""

    @abc.abstractmethod
    def in_float64(self) -> "Backend":
        """This backend if it computes in float64, else one for the same matrix that does.

        A TPU has no float64: there the host's processors compute.
        """

    @abc.abstractmethod
    def memories(self) -> list[tuple[str, int, int]]:
        """(name, number of devices that share it, free bytes) for each memory of this process.

        A memory whose size is unknown is left out.
        """

    @abc.abstractmethod
    def kernel_form(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> Any:
        """`shape` and `dtype` of kernel(x, z), called with the kind of arrays of this backend."""

    @abc.abstractmethod
    def kernel_values(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """kernel(x, z) for a few examples, computed in this process."""

    @abc.abstractmethod
    def distribute(self, rows: np.ndarray) -> Any:
        """An array with a row for each row of the matrix, placed as the matrix's rows are."""

    @abc.abstractmethod
    def distribute_examples(self, x: np.ndarray) -> Any:
        """The examples [n, d] of a Gram matrix, placed as the matrix's rows are."""

    @abc.abstractmethod
    def zeros(self) -> Any:
        """A storage filled with zeros, for `add_product`."""

    @abc.abstractmethod
    def empty(self) -> Any:
        """A storage for panels that are made one by one, by `gram_panel`."""

    @abc.abstractmethod
    def panel_shape(self, g: int) -> tuple[int, ...]:
        """The shape of `get_panel(storage, g)`."""

    @abc.abstractmethod
    def get_panel(self, storage: Any, g: int) -> np.ndarray:
        """Panel g as the devices of this process hold it, in one array in C order."""

    @abc.abstractmethod
    def put_panel(self, storage: Any, g: int, panel: np.ndarray) -> Any:
        """The storage with panel g as `get_panel` gave it."""

    @abc.abstractmethod
    def gram_panel(self, storage: Any, kernel: Kernel, x: Any, ridge: float, g: int) -> Any:
        """The storage with panel g of K + ridge I, for the Gram matrix K of the examples x."""

    @abc.abstractmethod
    def add_product(self, storage: Any, features: np.ndarray, dtype: str | None = None) -> Any:
        """The storage plus features features^T, for features [n, f].

        The product is computed in `dtype`, by default that of the matrix, and added in the latter.
        """

    @abc.abstractmethod
    def add_ridge(self, storage: Any, ridge: float, g: int) -> Any:
        """The storage with ridge added to the diagonal entries of panel g."""

    @abc.abstractmethod
    def factor_panel(self, storage: Any, g: int) -> tuple[Any, int]:
        """The storage with panel g of L in place of the matrix's panel, and a status.

        The panels before g must already hold L. The status is 0 for success and -1 if the panel is
        not finite. Otherwise the matrix is not positive definite, and the status is the first
        column of the panel, counted from 1, that shows it.
        """

    @abc.abstractmethod
    def solve(self, storage: Any, b: np.ndarray) -> np.ndarray:
        """x with L L^T x = b, for b [n, c]."""

    @abc.abstractmethod
    def multiply(self, storage: Any, v: np.ndarray) -> np.ndarray:
        """L L^T v, for v [n, c]."""

    @abc.abstractmethod
    def gram_product(
        self,
        kernel: Kernel,
        x: Any,
        ridge: float,
        v: np.ndarray,
        before_part: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """(K + ridge I) v for v [n, c], where K is the Gram matrix of distributed examples x.

        K is computed a part at a time and never stored. `before_part` is called before each part
        that is a program of its own, and may end the product by an exception.
        """

    @abc.abstractmethod
    def predict(self, kernel: Kernel, x: Any, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        """sum_i k(z_j, x_i) alpha_i as [m, c], for distributed examples x and new ones z [m, d]."""
