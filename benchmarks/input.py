"""Speed of the input pipeline, beside a plain one: Pillow in a pool of processes.

    python -m benchmarks.input [--name=imagenette_subset] [--image_size=299] [--seconds=20]
        [--num_workers=0] [--enlarge=500x375]

--enlarge measures a folder of 500 of the images, enlarged to that size and stored at quality 95.
500x375 is usual in ImageNet.

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

import functools
import io
import json
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Iterable

import cv2
import jax
import numpy as np
import simplejpeg
from absl import app, flags
from PIL import Image

from benchmarks.input_peer import peer_rate, rate
from rethinking import cli, experiments, provenance
from rethinking.data import decode, images, stream
from rethinking.data.pipeline import Reading
from rethinking.data.splits import Evaluation
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
_ENLARGE = flags.DEFINE_string(
    "enlarge", None, "WIDTHxHEIGHT of the images to measure. Default: as they are."
)
_SECONDS = flags.DEFINE_float("seconds", 20.0, "Length of a run.", lower_bound=0.1)
_REPEATS = flags.DEFINE_integer(
    "repeats", 3, "Number of runs of each; the best counts.", lower_bound=1
)

_COLOURS = experiments.defaults("training").augment.to_dict() | {
    "flip": True,
    "brightness": 32 / 255,
    "saturation": 0.5,
    "hue": 0.2,
    "contrast": 0.5,
}


def time_turns(split: stream.Split, cores: int) -> tuple[float, float]:
    """Images per second of our pipeline and of the peer, in turn."""
    size, batch_size = _IMAGE_SIZE.value, _BATCH_SIZE.value
    ours, peers = [], []
    reading = Reading(num_threads=cores, num_workers=_NUM_WORKERS.value)
    for _ in range(_REPEATS.value):
        batches = stream.train_batches(split, batch_size, size, 0, True, reading)
        ours.append(rate(batches, batch_size, _SECONDS.value))
        batches.close()
        peers.append(peer_rate(split, cores, size, batch_size, _SECONDS.value))
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


def time_views(encoded: list[bytes]) -> dict[str, float]:
    """Microseconds of decoding and resizing an image for training and for evaluation."""
    rng, size = np.random.default_rng(0), _IMAGE_SIZE.value
    return {
        "train": microseconds(lambda data: decode.random_view(data, size, rng), encoded),
        "eval": microseconds(lambda data: decode.central_view(data, size), encoded),
    }


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


def enlarged(split: stream.Split, size: str, folder: pathlib.Path) -> stream.Split:
    """500 images of the split, in `folder`, as JPEGs of another size and quality 95.

    Raises InputError if `size` is not WIDTHxHEIGHT.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", size)
    if not match:
        raise InputError(f"--enlarge={size}: must be WIDTHxHEIGHT, such as 500x375.")
    width, height = map(int, match.groups())
    (folder / "train" / "all").mkdir(parents=True)
    for index in range(0, len(split), -(-len(split) // 500)):
        image = decode.decode(split.records.read(index)[0])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        encoded = simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="420")
        (folder / "train" / "all" / f"{index}.jpg").write_bytes(encoded)
    return stream.load(str(folder), evaluation=Evaluation(fraction=0.002)).train


def main(_: list[str]) -> None:
    """Measures the pipeline on the set that the flags name, and prints the results."""
    cli.log_to_terminal()
    with tempfile.TemporaryDirectory() as folder:
        try:
            stream.check(_NAME.value, _DATA_DIR.value)
            split = stream.load(_NAME.value, _DATA_DIR.value).train
            if _ENLARGE.value:
                split = enlarged(split, _ENLARGE.value, pathlib.Path(folder))
        except InputError as error:
            cli.fail(error)
        measure(split)


def measure(split: stream.Split) -> None:
    """Measures the pipeline on the images of `split`, and prints the results."""
    cores = provenance.usable_cores()
    ours, peer = time_turns(split, cores)
    batches = stream.train_batches(split, _BATCH_SIZE.value, _IMAGE_SIZE.value, 0, True, Reading())
    colours = time_colours(next(batches))
    batches.close()
    sample = range(0, len(split), max(1, len(split) // 300))
    reading = microseconds(split.records.read, sample)
    encoded = [split.records.read(index)[0] for index in sample]
    size = sum(map(len, encoded)) / len(encoded)
    decoders = time_decoders(encoded)
    views = time_views(encoded)
    line = {
        "name": _NAME.value,
        "enlarge": _ENLARGE.value,
        "kilobytes_per_image": round(size / 1000, 1),
        "image_size": _IMAGE_SIZE.value,
        "batch": _BATCH_SIZE.value,
        "cores": cores,
        "num_workers": _NUM_WORKERS.value,
        "images_per_second_per_core": round(ours / cores, 1),
        "peer_images_per_second_per_core": round(peer / cores, 1),
        "ours_over_peer": round(ours / peer, 2) if peer else None,
        "read_us": reading,
        "decode_us": decoders,
        "views_us": views,
        "colours_us": colours,
        "device": provenance.device_name(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(cli.parse_flags, required=()))
