"""Tests of launchers make short runs: to optimize their programs would take most of the time."""

import jax
import pytest


@pytest.fixture(autouse=True)
def few_optimizations():
    """As JAX_DISABLE_MOST_OPTIMIZATIONS does in the programs that tests start."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
