"""Run as RANK FOLDER: one of two processes, with two fake devices each, that solve one system."""

import os
import pathlib
import socket
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from rethinking.kernels import cholesky, gram

rank, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
if rank == 0:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (folder / "port.partial").write_text(str(free.getsockname()[1]))
    (folder / "port.partial").rename(folder / "port")
while not (folder / "port").exists():
    time.sleep(0.05)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(
    f"localhost:{(folder / 'port').read_text()}", num_processes=2, process_id=rank
)
assert jax.device_count() == 4

x = np.random.default_rng(0).standard_normal((101, 4))
y = np.random.default_rng(1).standard_normal((101, 2))
backend = cholesky.make_backend(101, "float64", num_panels=5)
distributed = backend.distribute(x)


def make_panel(storage, g):
    return backend.gram_panel(storage, gram.Laplacian(2.0), distributed, 0.1, g)


factor = cholesky.factor(make_panel, backend)
np.save(folder / f"{rank}.npy", factor.solve(y))
