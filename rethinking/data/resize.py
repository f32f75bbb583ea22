"""A copy of a set of images in which no image is larger than needed, so that decoding is faster.

The copy is a TFDS set of its own, NAME_short_side_N. It has the records of the original in the same
order. So a seed of the corruption gives each image the same random label in both. Its pixels
differ, and a run that uses it has another config.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tqdm

from rethinking import provenance
from rethinking.data import open_files, stream
from rethinking.data.description import Source
from rethinking.data.faults import require_space
from rethinking.data.formats import DecodeError
from rethinking.data.records import Records
from rethinking.data.source import is_path
from rethinking.data.sources import tfds
from rethinking.data.splits import Evaluation
from rethinking.errors import require

QUALITY = 95
SHARD_BYTES = 150e6
VERSION = "1.0.0"
# In the description of a copy, between its `origin` and the rest.
_MADE = ", with each image resized"
# Images that are resized beforehand, to estimate the size of the copy and the time that it takes.
SAMPLE = 200


class Estimate(NamedTuple):
    """What a copy takes: bytes of its images, and seconds of a single core."""

    bytes: float
    core_seconds: float


def copy_name(name: str, short_side: int) -> str:
    """The name of the copy of a set: of a TFDS set, of a folder or of another set of images."""
    base = pathlib.Path(name).expanduser().absolute().stem if is_path(name) else name
    base = re.sub(r"\W", "_", base.partition(":")[0])
    return f"{base}_short_side_{short_side}"


def origin(name: str, data_dir: str | None = None) -> str:
    """What a copy is made of: the path of a set, or the name and the version of a TFDS set."""
    if is_path(name):
        return str(pathlib.Path(name).expanduser().resolve())
    folder = tfds.find_folder(name, data_dir)
    return folder.relative_to(tfds.resolve_data_dir(data_dir)).as_posix() if folder else name


def check_origin(name: str, folder: pathlib.Path, data_dir: str | None = None) -> None:
    """Raises InputError if the copy in `folder` is not made of the set `name`."""
    said = json.loads((folder / "dataset_info.json").read_text()).get("description", "")
    made_of, expected = said.partition(_MADE)[0], origin(name, data_dir)
    # Copies from before versions were noted.
    is_older = not is_path(name) and made_of == name.partition(":")[0]
    require(
        made_of == expected or is_older,
        f"{folder} is a copy of {made_of}, not of {expected}. Move it away, or choose another "
        "--data_dir.",
    )


def write_copy(
    name: str, short_side: int, data_dir: str | None = None, say: Callable[[str], None] = print
) -> str:
    """Writes the copy in which the shorter side of an image has at most `short_side` pixels.

    First says how large it will be and how long that takes. Smaller images are copied as they are.
    Returns the name of the copy.

    Raises:
        InputError: if the set cannot be streamed, if one of its images is damaged, or if the disk
            is too small.
    """
    require(short_side > 0, f"--short_side={short_side}: must be at least 1 pixel.")
    copy = copy_name(name, short_side)
    root = tfds.resolve_data_dir(data_dir)
    source = stream.find_coloured(name, data_dir, Evaluation(needed=False))
    source.check()
    splits = {}
    for key in ("train", "test"):
        if source.names[key]:
            splits[source.names[key]] = source.records(key)
    open_files.allow(sum(records.num_open_files for records in splits.values()), name)
    num_images = sum(map(len, splits.values()))
    estimate = estimate_copy(next(iter(splits.values())), num_images, short_side)
    cores = provenance.granted_cores()
    say(
        f"{copy} will have {num_images:,} images and about {_size(estimate.bytes)}. Writing "
        f"it takes about {_duration(estimate.core_seconds / cores)} on {cores} "
        f"core{'' if cores == 1 else 's'}. Both are estimates from {min(SAMPLE, num_images)} "
        "images."
    )
    require_space(root, 1.1 * estimate.bytes, f"Writing {copy}")
    with _unfinished(root / copy / VERSION) as folder, _bar(copy, num_images) as bar:
        writer = _Writer(folder, copy, short_side, _features(source), bar)
        infos = []
        for split, records in splits.items():
            size = estimate.bytes / num_images * len(records)
            lengths = writer.write(split, records, max(1, round(size / SHARD_BYTES)))
            infos.append(_split_info(folder, copy, split, lengths))
        _write_metadata(writer, infos, origin(name, data_dir))
    return copy


@contextlib.contextmanager
def _unfinished(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that becomes `folder` at the end. After an error it is removed."""
    # Named as TFDS names unfinished sets, so that a later preparation warns of it.
    unfinished = folder.with_name(f"incomplete.{secrets.token_hex(4)}_{VERSION}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    os.replace(unfinished, folder)


def estimate_copy(records: Records, num_images: int, short_side: int) -> Estimate:
    """What a copy of `num_images` such images takes, from a sample from all over `records`."""
    num = min(SAMPLE, len(records))
    size, start = 0, time.process_time()
    for number in range(num):
        size += len(_resized(records, number * len(records) // num, short_side)[0])
    spent = time.process_time() - start
    return Estimate(size / num * num_images, spent / num * num_images)


def shrink(encoded: bytes, short_side: int) -> bytes:
    """The image as a JPEG whose shorter side has `short_side` pixels.

    A smaller image stays as it is. Raises DecodeError.
    """
    import cv2
    import simplejpeg

    from rethinking.data import decode

    height, width = decode.shape(encoded)
    if min(height, width) <= short_side:
        return encoded
    scale = short_side / min(height, width)
    size = round(width * scale), round(height * scale)
    image = cv2.resize(decode.decode(encoded), size, interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(image, quality=QUALITY, colorsubsampling="420")


def _resized(records: Records, index: int, short_side: int) -> tuple[bytes, int]:
    encoded, label = records.read(index)
    try:
        return shrink(encoded, short_side), label
    except DecodeError as error:
        raise records.unusable(index, str(error)) from error


class _Writer(NamedTuple):
    """Writes the files of a copy."""

    folder: pathlib.Path
    name: str
    short_side: int
    features: Any
    bar: tqdm.tqdm

    def write(self, split: str, records: Records, num_shards: int) -> list[int]:
        """Writes the files of a split. Returns the number of records in each."""
        from array_record.python.array_record_module import ArrayRecordWriter

        starts = [shard * len(records) // num_shards for shard in range(num_shards + 1)]
        images = _in_order(records, self.short_side)
        for shard, (first, last) in enumerate(itertools.pairwise(starts)):
            file = f"{self.name}-{split}.array_record-{shard:05d}-of-{num_shards:05d}"
            writer = ArrayRecordWriter(str(self.folder / file), "group_size:1")
            for image, label in itertools.islice(images, last - first):
                example = {"image": image, "label": label}
                writer.write(self.features.serialize_example(example))
                self.bar.update()
            writer.close()
        return [last - first for first, last in itertools.pairwise(starts)]


def _in_order(records: Records, short_side: int) -> Iterator[tuple[bytes, int]]:
    """The resized images and their labels. Some are made ahead, in a thread for each core.

    Decoding and encoding do not hold Python's lock.
    """
    cores = provenance.granted_cores()
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for index in range(len(records)):
            waiting.append(pool.submit(_resized, records, index, short_side))
            if len(waiting) > 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _features(source: Source) -> Any:
    """TFDS's description of an image and its label, with the names of the classes if known."""
    import tensorflow_datasets

    kinds = tensorflow_datasets.features
    label = kinds.ClassLabel(num_classes=source.info.num_classes)
    names = getattr(getattr(source, "description", None), "classes", None)
    if isinstance(source, tfds.TfdsSource):
        original = tensorflow_datasets.builder_from_directory(source.folder).info.features["label"]
        if original.num_classes == source.info.num_classes:
            label = original
    elif names:
        label = kinds.ClassLabel(names=names)
    image = kinds.Image(shape=(None, None, 3), encoding_format="jpeg")
    return kinds.FeaturesDict({"image": image, "label": label})


def _split_info(folder: pathlib.Path, name: str, split: str, lengths: list[int]) -> Any:
    from tensorflow_datasets import core

    template = core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    size = sum(file.stat().st_size for file in folder.glob(f"{name}-{split}.*"))
    return core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


def _write_metadata(writer: _Writer, infos: list[Any], original: str) -> None:
    import tensorflow_datasets

    tensorflow_datasets.folder_dataset.write_metadata(
        data_dir=str(writer.folder),
        features=writer.features,
        split_infos=infos,
        version=VERSION,
        check_data=False,
        description=(
            f"{original}{_MADE} so that its shorter side has at most "
            f"{writer.short_side} pixels, and stored as a JPEG of quality {QUALITY}."
        ),
    )


def _bar(name: str, num_images: int) -> tqdm.tqdm:
    """A bar on the terminal, or nothing where there is no terminal."""
    return tqdm.tqdm(total=num_images, desc=name, unit="image", disable=None)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.2f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
