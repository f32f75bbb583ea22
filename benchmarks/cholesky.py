"""Speed of the Cholesky factorization, and its cost on many devices, without having them.

    python -m benchmarks.cholesky --n=16000 [--dtype=float32] [--num_devices=0] [--peers=scipy,jax]
    python -m benchmarks.cholesky --n=60000 --dtype=float32 --count

The first command prints one JSON line. GFLOP/s are n^3 / 3 over the seconds of the factorization
alone, the best of `--repeats`. Each peer gets such a line too: scipy is LAPACK's potrf, jax and
torch are these libraries' functions on the first device. Peers factor the full matrix. Each
measurement has a process of its own, so that the crash of a library does not end the others.

`--count` prints the work, the bytes sent and the bytes held per device, for 1 to 256 devices.
`launch.compile` compiles the programs of a row of Table 3 for chips that are not there.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from absl import app, flags

from benchmarks import processes
from rethinking import cli, provenance, sharding
from rethinking.errors import InputError, require_known
from rethinking.kernels import cholesky, gram, layout, memory
from rethinking.kernels import count as counts

_PEER_NAMES = ("scipy", "jax", "torch")
_N = flags.DEFINE_integer("n", 16_000, "Rows of the matrix.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Type of the matrix.")
_NUM_DEVICES = flags.DEFINE_integer("num_devices", 0, "Devices to use; 0: all.", lower_bound=0)
_NUM_PANELS = flags.DEFINE_integer(
    "num_panels", 0, "Panels of the matrix; 0: the program chooses.", lower_bound=0
)
_PEERS = flags.DEFINE_list("peers", [], "Other libraries to measure: scipy, jax, torch.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 2, "Factorizations to time; the fastest counts.", lower_bound=1
)
_COUNT = flags.DEFINE_boolean(
    "count", False, "Count work, traffic and memory instead of measuring."
)


def time_factor(n: int, dtype: str, num_devices: int, num_panels: int, repeats: int) -> dict:
    """The seconds that factor a Gaussian Gram matrix with a small ridge, without making it."""
    mesh = sharding.device_mesh(num_devices, "rows")
    backend = cholesky.make_backend(n, dtype, mesh, num_panels)
    memory.require(backend, 1, 64)
    x = backend.distribute(np.random.default_rng(0).standard_normal((n, 64)))
    kernel = gram.Gaussian(8.0)
    spent = 0.0

    def make_panel(storage, g: int):
        nonlocal spent
        jax.block_until_ready(storage)
        start = time.perf_counter()
        made = jax.block_until_ready(backend.gram_panel(storage, kernel, x, 1e-3, g))
        spent += time.perf_counter() - start
        return made

    all_seconds = []
    for _ in range(repeats + 1):
        spent = 0.0
        start = time.perf_counter()
        jax.block_until_ready(cholesky.factor(make_panel, backend).storage)
        all_seconds.append(time.perf_counter() - start - spent)
    best = min(all_seconds)
    return {
        "n": n,
        "dtype": dtype,
        "device": provenance.device_name(),
        "num_devices": mesh.size,
        "num_panels": backend.layout.num_panels,
        "seconds": round(best, 3),
        "gflops": round(counts.least_operations(n) / best / 1e9, 1),
        "seconds_first": round(all_seconds[0], 3),
        "factor_gb_per_device": round(backend.layout.entries * backend.dtype.itemsize / 1e9, 3),
    }


def time_peer(name: str, n: int, dtype: str, repeats: int) -> dict:
    """The seconds of a library's factorization of the same matrix; `error` says why it failed."""
    factor = {"scipy": _scipy, "jax": _jax, "torch": _torch}[name]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((n, 64)), dtype)
    kernel = gram.Gaussian(8.0)
    best = float("inf")
    line = {"peer": name, "n": n, "dtype": dtype, "device": provenance.device_name()}
    try:
        matrix = jax.jit(lambda x: kernel(x, x) + 1e-3 * jnp.eye(n, dtype=dtype))(x)
        for _ in range(repeats + 1):
            seconds, lower = factor(matrix)
            best = min(best, seconds)
        # If a library's sizes overflow, it may return a wrong factor without an error.
        last = np.asarray(lower[-1], np.float64)
        wrong = abs(float(last @ last) - float(matrix[-1, -1]))
    except Exception as error:  # Each library raises its own type.
        return line | {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    error = "" if wrong < 1e-3 else f"the factor's last row is wrong by {wrong:g}"
    return line | {
        "seconds": round(best, 3),
        "gflops": round(counts.least_operations(n) / best / 1e9, 1),
        "matrix_gb": round(matrix.nbytes / 1e9, 3),
        "error": error,
    }


def _scipy(matrix: jax.Array) -> tuple[float, np.ndarray]:
    (potrf,) = scipy.linalg.get_lapack_funcs(("potrf",), (np.empty((1, 1), matrix.dtype),))
    copy = np.array(matrix, order="F")
    start = time.perf_counter()
    lower, info = potrf(copy, lower=True, clean=False, overwrite_a=True)
    if info:
        raise ValueError(f"potrf returned {info}")
    return time.perf_counter() - start, lower


def _jax(matrix: jax.Array) -> tuple[float, jax.Array]:
    program = jax.jit(lambda a: jax.lax.linalg.cholesky(a, symmetrize_input=False))
    factor = program.lower(matrix).compile()
    start = time.perf_counter()
    lower = jax.block_until_ready(factor(matrix))
    return time.perf_counter() - start, lower


def _torch(matrix: jax.Array) -> tuple[float, np.ndarray]:
    import torch

    tensor = torch.from_dlpack(matrix)
    start = time.perf_counter()
    lower = torch.linalg.cholesky(tensor)
    last = lower[-1:].cpu().numpy()  # This waits for the device.
    return time.perf_counter() - start, last


def count(n: int, num_devices: int, itemsize: int) -> dict:
    """The cost of `rethinking.kernels.sharded` per device; `work` is relative to n^3 / 3 in all."""
    places = layout.make(n, num_devices)
    work = num_devices * counts.operations(places) / counts.least_operations(n)
    return {
        "devices": num_devices,
        "panels": places.num_panels,
        "work": round(work, 3),
        "sent_gb": round(counts.numbers_sent(places) * itemsize / 1e9, 2),
        "held_gb": round(places.entries * itemsize / 1e9, 3),
    }


def main(argv: list[str]) -> None:
    """Measures or counts, as the flags say."""
    if len(argv) > 1:
        cli.fail(f"unknown arguments: {' '.join(argv[1:])}")
    with jax.enable_x64(_DTYPE.value == "float64"):
        try:
            for line in _lines():
                print(json.dumps(line), flush=True)
        except InputError as error:
            cli.fail(error)


def _lines() -> Iterator[dict]:
    n, dtype = _N.value, _DTYPE.value
    if _COUNT.value:
        for num_devices in (1, 4, 16, 64, 256):
            yield count(n, num_devices, np.dtype(dtype).itemsize)
        return
    for peer in _PEERS.value:
        require_known(peer, _PEER_NAMES, "--peers: unknown")
    ours = n, dtype, _NUM_DEVICES.value, _NUM_PANELS.value, _REPEATS.value
    lines = [({"n": n, "dtype": dtype}, time_factor, ours)]
    for peer in _PEERS.value:
        lines.append(
            ({"peer": peer, "n": n, "dtype": dtype}, time_peer, (peer, n, dtype, _REPEATS.value))
        )
    for line, function, arguments in lines:
        try:
            yield processes.call(_in_type, dtype, function, *arguments)
        except processes.DiedError as error:
            yield line | {"error": str(error)}


def _in_type(dtype: str, function: Callable[..., dict], *arguments: Any) -> dict:
    with jax.enable_x64(dtype == "float64"):
        return function(*arguments)


if __name__ == "__main__":
    app.run(main)
