"""A strict environment for every test: eight fake devices, no promotion of types or ranks."""

import gc
import os
import pathlib
import shutil
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# Two test processes whose BLAS threads outnumber the cores spend most of their time on waiting.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Most tests compile for seconds what runs for milliseconds. Full optimization would double that.
# It is what users have: JAX_DISABLE_MOST_OPTIMIZATIONS=0 before the command tests with it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Tests, and the programs that they start, share a cache of compiled programs.

    It is deleted at the end. Slow tests compute for long, so XLA optimizes what they compile.
    """
    if config.option.markexpr == "slow":
        jax.config.update("jax_disable_most_optimizations", False)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers inherit it
        folder = tempfile.mkdtemp(prefix="rethinking-compiled-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        jax.config.update("jax_compilation_cache_dir", folder)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish():
    """The garbage collector need not look again and again at what was imported."""
    gc.freeze()


@pytest.fixture
def tfds_dir():
    """A function from the name of a data set to its folder. It skips the test if there is none."""
    root = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()

    def find(name: str) -> str:
        if not (root / name).is_dir():
            pytest.skip(
                f"{name} is not prepared in {root}: python -m rethinking.data.prepare {name}"
            )
        return str(root)

    return find
