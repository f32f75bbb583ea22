"""The peer of `benchmarks.input`: a plain pipeline, Pillow in a pool of processes."""

import collections
import concurrent.futures
import io
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

from rethinking.data import decode, stream
from rethinking.data.records import Records

_FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.NEAREST,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
)


def rate(batches: Iterator, batch_size: int, seconds: float) -> float:
    """Images per second, measured from the first batch on."""
    next(batches)
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - start)


def peer_batch(
    records: Records, size: int, seed: int, indices: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """A batch, made by a process of the peer."""
    rng = np.random.default_rng([seed, *indices[:1]])
    views, labels = [], []
    for index in indices:
        encoded, label = records.read(index)
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        top, left, height, width = decode.random_box(image.height, image.width, rng)
        box = (left, top, left + width, top + height)
        resampling = _FILTERS[rng.integers(len(_FILTERS))]
        views.append(np.asarray(image.resize((size, size), resampling, box)))
        labels.append(label)
    return np.stack(views), np.array(labels)


def peer_batches(
    pool: concurrent.futures.Executor, split: stream.Split, size: int, batch_size: int, ahead: int
):
    """Yields the peer's batches without end. `ahead` of them are made at the same time."""
    order = itertools.cycle(np.random.default_rng(0).permutation(split.indices).tolist())

    def submit():
        indices = list(itertools.islice(order, batch_size))
        return pool.submit(peer_batch, split.records, size, 0, indices)

    pending = collections.deque(submit() for _ in range(ahead))
    while True:
        pending.append(submit())
        yield pending.popleft().result()


def peer_rate(split: stream.Split, cores: int, size: int, batch_size: int, seconds: float) -> float:
    """Images per second of the peer; 0 if one of its processes crashes."""
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(cores, context) as pool:
            batches = peer_batches(pool, split, size, batch_size, 2 * cores)
            # The clock starts when every process has started.
            for _ in range(cores):
                next(batches)
            measured = rate(batches, batch_size, seconds)
            pool.shutdown(cancel_futures=True)
            return measured
    except concurrent.futures.BrokenExecutor as error:
        print(f"The peer crashed: {error}", file=sys.stderr)
        return 0.0
