"""The folder of compiled programs, and which of its programs a run takes."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rethinking import sharding


@contextlib.contextmanager
def cache_in(folder):
    """JAX keeps compiled programs in `folder` and nowhere else. Its settings are restored."""
    names = ("compilation_cache_dir", "compilation_cache_include_metadata_in_key")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.parametrize("with_scopes", [False, True])
def test_a_profile_takes_only_programs_with_the_present_scopes(with_scopes, tmp_path):
    def compiled(scope):
        def function(x):
            with jax.named_scope(scope):
                return jnp.sin(x) @ x

        return jax.jit(function).lower(jnp.ones((3, 3))).compile().as_text()

    with cache_in(tmp_path):
        sharding.use_compilation_cache(with_scopes)
        assert "older" in compiled("older")
        assert ("newer" in compiled("newer")) == with_scopes
