"""Speed of the Cholesky factorization, and what it takes on many devices by count, without them.

    python -m benchmarks.cholesky --n=16000 [--dtype=float32] [--num_devices=0] [--peers=scipy,jax,torch]
    python -m benchmarks.cholesky --n=60000 --dtype=float32 --count
    TPU_SKIP_MDS_QUERY=1 python -m benchmarks.cholesky --n=60000 --dtype=float32 --topology=v5e:4x4

The first prints one JSON line: GFLOP/s are n^3 / 3 over the seconds of the factorization alone, the best of
`--repeats`. So does each of the peers, which factor the full matrix: LAPACK's potrf through SciPy, and the functions of
JAX and of PyTorch on this machine's first device. `--count` prints work, bytes sent and bytes held per device for 1 to
256 devices. `--topology` compiles the factorization's programs for TPU chips that need not be there (package libtpu),
and prints the seconds and what they take of a chip's memory, the matrix included.
"""

import json
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from rethinking import cli, provenance
from rethinking.errors import InputError
from rethinking.kernels import cholesky, gram, layout, memory
from rethinking.kernels.sharded import ShardedBackend

_N = flags.DEFINE_integer("n", 16_000, "Rows of the matrix.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Of the matrix.")
_NUM_DEVICES = flags.DEFINE_integer("num_devices", 0, "Devices to use; 0: all.", lower_bound=0)
_NUM_PANELS = flags.DEFINE_integer(
    "num_panels", 0, "Panels; 0: as many as are chosen by themselves.", lower_bound=0
)
_PEERS = flags.DEFINE_list("peers", [], "Measured, too: scipy, jax, torch.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 2, "Factorizations to time; the best counts.", lower_bound=1
)
_COUNT = flags.DEFINE_boolean(
    "count", False, "Count work, traffic and memory instead of measuring."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Compile for TPU chips such as v5e:4x4 instead of measuring."
)


def time_factor(n: int, dtype: str, num_devices: int, num_panels: int, repeats: int) -> dict:
    """Seconds of the factorization of a Gaussian Gram matrix with a small ridge, its making not counted."""
    mesh = Mesh(np.array(jax.devices()[: num_devices or None]), ("rows",))
    backend = cholesky.make_backend(n, dtype, mesh, num_panels)
    memory.require(backend, 1, 64)
    x = backend.deal(np.random.default_rng(0).standard_normal((n, 64)))
    kernel, best, first = gram.Gaussian(8.0), float("inf"), None
    for _ in range(repeats + 1):
        spent = 0.0

        def make_panel(storage, g: int):
            nonlocal spent
            jax.block_until_ready(storage)
            start = time.perf_counter()
            made = jax.block_until_ready(backend.gram_panel(storage, kernel, x, 1e-3, g))
            spent += time.perf_counter() - start
            return made

        start = time.perf_counter()
        jax.block_until_ready(cholesky.factor(make_panel, backend).storage)
        seconds = time.perf_counter() - start - spent
        first, best = first or seconds, min(best, seconds)
    return {
        "n": n,
        "dtype": dtype,
        "device": provenance.device_name(),
        "num_devices": mesh.size,
        "num_panels": backend.layout.num_panels,
        "seconds": round(best, 3),
        "gflops": round(n**3 / 3 / best / 1e9, 1),
        "seconds_first": round(first, 3),
        "factor_gb_per_device": round(backend.layout.entries * backend.dtype.itemsize / 1e9, 3),
    }


def time_peer(name: str, n: int, dtype: str, repeats: int) -> dict:
    """Seconds of a library's factorization of the same matrix, whole; `error` says why there are none."""
    factor = {"scipy": _scipy, "jax": _jax, "torch": _torch}[name]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((n, 64)), dtype)
    kernel, best = gram.Gaussian(8.0), float("inf")
    line = {"peer": name, "n": n, "dtype": dtype, "device": provenance.device_name()}
    try:
        matrix = jax.jit(lambda x: kernel(x, x) + 1e-3 * jnp.eye(n, dtype=dtype))(x)
        for _ in range(repeats + 1):
            seconds, lower = factor(matrix)
            best = min(best, seconds)
        # A library whose sizes overflow may not say so.
        last = np.asarray(lower[-1], np.float64)
        wrong = abs(float(last @ last) - float(matrix[-1, -1]))
    except Exception as error:  # each library has its own
        return line | {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    error = "" if wrong < 1e-3 else f"the factor's last row is wrong by {wrong:g}"
    return line | {
        "seconds": round(best, 3),
        "gflops": round(n**3 / 3 / best / 1e9, 1),
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
    factor = (
        jax.jit(lambda a: jax.lax.linalg.cholesky(a, symmetrize_input=False))
        .lower(matrix)
        .compile()
    )
    start = time.perf_counter()
    lower = jax.block_until_ready(factor(matrix))
    return time.perf_counter() - start, lower


def _torch(matrix: jax.Array) -> tuple[float, np.ndarray]:
    import torch

    tensor = torch.from_dlpack(matrix)
    start = time.perf_counter()
    lower = torch.linalg.cholesky(tensor)
    last = lower[-1:].cpu().numpy()  # which waits for the device
    return time.perf_counter() - start, last


def count(n: int, num_devices: int, itemsize: int) -> dict:
    """What the programs of `rethinking.kernels.sharded` do, per device; `work` is relative to n^3 / 3 over all."""
    places = layout.make(n, num_devices)
    width, tile = places.width, places.block * places.width
    work = sent = 0
    for g in range(places.num_panels):
        slots = places.num_panels - g
        work += 2 * slots * g * tile * width + (slots - 1) * tile * width + width**3 / 3
        sent += (g + 1) * tile * (num_devices - 1)
    return {
        "devices": num_devices,
        "panels": places.num_panels,
        "work": round(num_devices * work / (n**3 / 3), 3),
        "sent_gb": round(sent * itemsize / 1e9, 2),
        "held_gb": round(places.entries * itemsize / 1e9, 3),
    }


def compile_for(topology: str, n: int, dtype: str) -> Iterator[dict]:
    """Compiles the factorization's programs for the chips of `topology`: seconds, and bytes on each chip meanwhile."""
    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    backend = ShardedBackend(
        layout.make(n, len(devices)), dtype, Mesh(np.array(devices), ("rows",))
    )
    places = backend.layout

    def shape(*local: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (len(devices) * local[0], *local[1:]),
            backend.dtype,
            sharding=NamedSharding(backend.mesh, backend.dealt),
        )

    tiles, square = (
        shape(places.num_tiles, places.block, places.width),
        shape(places.width, places.width),
    )
    g = jax.ShapeDtypeStruct(
        (), jnp.int32, sharding=NamedSharding(backend.mesh, backend.replicated)
    )
    matrix = places.entries * backend.dtype.itemsize
    for name, function, dealt, shared in (
        ("update", backend.update, (tiles,), (g,)),
        ("diagonal block", backend.factor_diagonal, (square,), ()),
        ("below", backend.solve_below, (tiles, square), (g,)),
    ):
        start = time.perf_counter()
        program = backend.program(name, function, len(dealt), len(shared), donate=dealt[0] is tiles)
        used = program.lower(*dealt, *shared).compile().memory_analysis()
        held = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
        total = held + used.temp_size_in_bytes + (0 if dealt[0] is tiles else matrix)
        yield {
            "topology": topology,
            "chips": len(devices),
            "n": n,
            "dtype": dtype,
            "panels": places.num_panels,
            "program": name,
            "compile_seconds": round(time.perf_counter() - start, 1),
            "matrix_gb_per_chip": round(matrix / 1e9, 3),
            "gb_per_chip": round(total / 1e9, 3),
        }


def main(argv: list[str]) -> None:
    """Measures, counts or compiles, as the flags say."""
    if len(argv) > 1:
        cli.fail(f"unknown arguments: {' '.join(argv[1:])}")
    with jax.enable_x64(_DTYPE.value == "float64"):
        try:
            if _COUNT.value:
                for num_devices in (1, 4, 16, 64, 256):
                    print(json.dumps(count(_N.value, num_devices, np.dtype(_DTYPE.value).itemsize)))
            elif _TOPOLOGY.value:
                for line in compile_for(_TOPOLOGY.value, _N.value, _DTYPE.value):
                    print(json.dumps(line), flush=True)
            else:
                for peer in _PEERS.value:
                    require_known(peer, ("scipy", "jax", "torch"), "--peers: unknown")
                print(
                    json.dumps(
                        time_factor(
                            _N.value,
                            _DTYPE.value,
                            _NUM_DEVICES.value,
                            _NUM_PANELS.value,
                            _REPEATS.value,
                        )
                    ),
                    flush=True,
                )
                for peer in _PEERS.value:
                    print(
                        json.dumps(time_peer(peer, _N.value, _DTYPE.value, _REPEATS.value)),
                        flush=True,
                    )
        except InputError as error:
            cli.fail(error)


if __name__ == "__main__":
    app.run(main)
