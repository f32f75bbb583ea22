"""Speed of the input pipeline, beside a plain one: Pillow in a pool of processes.

    python -m benchmarks.input [--name=imagenette_subset] [--image_size=299] [--seconds=20]
        [--num_workers=0]

The pipeline reads, decodes, cuts a box, resizes and batches. The command prints one JSON line. Our
pipeline and the peer run in turn, `--seconds` each, with one thread or process for each core. The
best run of each counts. The peer reads the same records and draws the same kind of boxes and one of
four filters. It leaves the rest to Pillow, like a pipeline written without thought of speed.

The command also measures microseconds per image on one core:
- of reading its bytes and its label;
- of JPEG decoders;
- of the colour distortions on the host (NumPy and OpenCV, then float32 to the device);
- of the colour distortions on the device (bytes to the device, then `images.distort`).
"""

import collections
import concurrent.futures
import functools
import io
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import cv2
import jax
import numpy as np
import simplejpeg
from absl import app, flags
from PIL import Image

from rethinking import cli, experiments, provenance
from rethinking.data import decode, images, stream
from rethinking.data.pipeline import Reading
from rethinking.data.records import Records
from rethinking.errors import InputError

_NAME = flags.DEFINE_string(
    "name", "imagenette_subset", "A set of colour images that can be streamed."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 299, "Height and width of the images in a batch.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", 0, "Number of processes for our threads; 0: a single one.", lower_bound=0
)
_SECONDS = flags.DEFINE_float("seconds", 20.0, "Length of a run.", lower_bound=0.1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 3, "Number of runs of each; the best counts.", lower_bound=1
)

_FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.NEAREST,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
)
_COLOURS = experiments.defaults("training").augment.to_dict() | {
    "flip": True,
    "brightness": 32 / 255,
    "saturation": 0.5,
    "hue": 0.2,
    "contrast": 0.5,
}


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


def peer_rate(split: stream.Split, cores: int) -> float:
    """Images per second of the peer; 0 if one of its processes crashes."""
    size, batch_size = _IMAGE_SIZE.value, _BATCH_SIZE.value
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(cores, context) as pool:
            batches = peer_batches(pool, split, size, batch_size, 2 * cores)
            # The clock starts when every process has started.
            for _ in range(cores):
                next(batches)
            measured = rate(batches, batch_size, _SECONDS.value)
            pool.shutdown(cancel_futures=True)
            return measured
    except concurrent.futures.BrokenExecutor as error:
        print(f"The peer crashed: {error}", file=sys.stderr)
        return 0.0


def time_turns(split: stream.Split, cores: int) -> tuple[float, float]:
    """Images per second of our pipeline and of the peer, in turn."""
    size, batch_size = _IMAGE_SIZE.value, _BATCH_SIZE.value
    ours, peers = [], []
    reading = Reading(num_threads=cores, num_workers=_NUM_WORKERS.value)
    for _ in range(_REPEATS.value):
        batches = stream.train_batches(split, batch_size, size, 0, True, reading)
        ours.append(rate(batches, batch_size, _SECONDS.value))
        batches.close()
        peers.append(peer_rate(split, cores))
    return max(ours), max(peers)


def microseconds(
    function: Callable, items: Iterable, clock: Callable[[], float] = time.thread_time
) -> float:
    """Microseconds per call, in the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        start = clock()
        for item in items:
            function(item)
        best = min(best, clock() - start)
    return round(1e6 * best / len(items))


def time_decoders(encoded: list[bytes]) -> dict[str, float]:
    """Microseconds per image of decoders, at the full and at half the size.

    OpenCV leaves the channels in its own order.
    """

    def opencv(flag: int) -> Callable:
        return lambda data: cv2.imdecode(
            np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION
        )

    def pillow(data: bytes, draft: bool = False) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        if draft:
            image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(image.convert("RGB"))

    decoders = {
        "simplejpeg": simplejpeg.decode_jpeg,
        "simplejpeg_half": functools.partial(decode.decode, shrink=2),
        "opencv": opencv(cv2.IMREAD_COLOR),
        "opencv_half": opencv(cv2.IMREAD_REDUCED_COLOR_2),
        "pillow": pillow,
        "pillow_half": functools.partial(pillow, draft=True),
    }
    return {name: microseconds(decoder, encoded) for name, decoder in decoders.items()}


def host_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One image, distorted on the host as `images.distort` does on the device."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    image = image.astype(np.float32) / np.float32(255)
    image += np.float32(rng.uniform(-1, 1) * _COLOURS["brightness"])
    early, contrast = rng.random() < 0.5, np.float32(rng.uniform(0.5, 1.5))
    for change in ("contrast", "hsv") if early else ("hsv", "contrast"):
        if change == "contrast":
            mean = image.mean((0, 1))
            image = (image - mean) * contrast + mean
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0] + np.float32(360 * rng.uniform(-0.2, 0.2))) % np.float32(360)
            hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(rng.uniform(0.5, 1.5)), 0, 1)
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return 2 * np.clip(image, 0, 1) - 1


def time_colours(batch: stream.Batch) -> dict[str, float]:
    """Microseconds per image of the distortions on host and device, and of sending the images."""
    rng = np.random.default_rng(0)
    num = len(batch.images)
    floats = batch.images.astype(np.float32)
    keys = jax.random.split(jax.random.key(0), num)
    distort = jax.jit(lambda stored: images.distort(stored, keys, _COLOURS))
    on_device = jax.device_put(batch.images)
    jax.block_until_ready(distort(on_device))

    def wait(function: Callable) -> Callable:
        return lambda item: jax.block_until_ready(function(item))

    clock = time.perf_counter
    return {
        "host_colours": microseconds(lambda image: host_colours(image, rng), batch.images),
        "send_floats": round(microseconds(wait(jax.device_put), [floats] * 5, clock) / num, 1),
        "device_colours": round(microseconds(wait(distort), [on_device] * 5, clock) / num, 1),
        "send_bytes": round(microseconds(wait(jax.device_put), [batch.images] * 5, clock) / num, 1),
    }


def main(_: list[str]) -> None:
    """Measures the pipeline on the set that the flags name, and prints the results."""
    cli.log_to_terminal()
    try:
        stream.check(_NAME.value, _DATA_DIR.value)
        split = stream.load(_NAME.value, _DATA_DIR.value).train
    except InputError as error:
        cli.fail(error)
    cores = provenance.usable_cores()
    ours, peer = time_turns(split, cores)
    batches = stream.train_batches(split, _BATCH_SIZE.value, _IMAGE_SIZE.value, 0, True, Reading())
    colours = time_colours(next(batches))
    batches.close()
    sample = range(0, len(split), max(1, len(split) // 300))
    reading = microseconds(split.records.read, sample)
    decoders = time_decoders([split.records.read(index)[0] for index in sample])
    line = {
        "name": _NAME.value,
        "image_size": _IMAGE_SIZE.value,
        "batch": _BATCH_SIZE.value,
        "cores": cores,
        "num_workers": _NUM_WORKERS.value,
        "images_per_second_per_core": round(ours / cores, 1),
        "peer_images_per_second_per_core": round(peer / cores, 1),
        "ours_over_peer": round(ours / peer, 2) if peer else None,
        "read_us": reading,
        "decode_us": decoders,
        "colours_us": colours,
        "device": provenance.device_name(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=()))
