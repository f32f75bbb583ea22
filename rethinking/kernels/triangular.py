"""Triangular solves that XLA compiles well on every kind of device."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

# How many rows the blocked solve takes at a time.
BLOCK = 128


def solve_lower(
    lower: jax.Array, right: jax.Array, transposed: bool = False, blocked: bool = False
) -> jax.Array:
    """x with lower x = right, or with lower^T x = right if `transposed`.

    With `blocked` a loop solves for one block of rows after another. That is for TPUs, where XLA
    takes minutes to compile a wide triangular solve.

    Without `blocked`, the solve uses the upper factor lower^T. A GPU's solver wants contiguous
    columns, and those of lower^T are the rows of `lower`. Given `lower` itself, XLA would transpose
    the whole storage that holds it, and so store the matrix twice.
    """
    if not blocked or lower.shape[0] <= BLOCK:
        return solve_triangular(lower.T, right, trans=int(not transposed), lower=False)
    if transposed:
        # With rows and columns in reverse order an upper triangle is a lower one.
        return _solve_blocks(lower[::-1, ::-1].T, right[::-1])[::-1]
    return _solve_blocks(lower, right)


def _solve_blocks(lower: jax.Array, right: jax.Array) -> jax.Array:
    """x with lower x = right, by substitution of one block of rows after another."""
    missing = -lower.shape[0] % BLOCK
    ones = jnp.arange(lower.shape[0] + missing, dtype=jnp.int32) >= lower.shape[0]
    lower = jnp.pad(lower, (0, missing)) + jnp.diag(ones).astype(lower.dtype)
    right = jnp.pad(right, ((0, missing), (0, 0)))

    def step(j, solved):
        first = j * BLOCK
        rows = lax.dynamic_slice_in_dim(lower, first, BLOCK)
        rest = lax.dynamic_slice_in_dim(right, first, BLOCK) - rows @ solved
        corner = lax.dynamic_slice_in_dim(rows, first, BLOCK, axis=1)
        block = solve_triangular(corner, rest, lower=True)
        return lax.dynamic_update_slice_in_dim(solved, block, first, 0)

    solved = lax.fori_loop(0, len(lower) // BLOCK, step, jnp.zeros_like(right))
    return solved[: len(lower) - missing]
