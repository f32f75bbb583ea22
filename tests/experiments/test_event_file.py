"""TensorBoard's event files, read back with tensorboardX's messages and checksums."""

import math
import struct
import time

import numpy as np
from etils import epath
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from rethinking.experiments.event_file import EventFile
from tests import test_runs

bucket = test_runs.bucket


def read(content):
    """The events in a file's bytes. Checks their checksums."""
    events = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == struct.pack("<I", masked_crc32c(content[:8]))
        message, checksum = content[12 : 12 + length], content[12 + length : 16 + length]
        assert checksum == struct.pack("<I", masked_crc32c(message))
        events.append(Event.FromString(message))
        content = content[16 + length :]
    return events


def scalars(event):
    return {value.tag: value.simple_value for value in event.summary.value}


def test_scalars_are_read_back(tmp_path):
    start = time.time()
    file = EventFile(epath.Path(tmp_path))
    file.add(0, {"train_loss": 2.5, "test_accuracy": 0.1})
    file.add(2**40 + 300, {"x" * 200: -3.25})
    file.add(3, {"huge": 1e300, "nan": math.nan, "third": 1 / 3, "count": 7})
    (path,) = tmp_path.glob("events.out.tfevents.*")
    first, second, third, fourth = read(path.read_bytes())
    assert first.file_version == "brain.Event:2"
    assert (second.step, scalars(second)) == (
        0,
        {"train_loss": 2.5, "test_accuracy": np.float32(0.1)},
    )
    assert (third.step, scalars(third)) == (2**40 + 300, {"x" * 200: -3.25})
    values = scalars(fourth)
    assert math.isnan(values.pop("nan"))
    assert values == {"huge": math.inf, "third": np.float32(1 / 3), "count": 7}
    assert start <= first.wall_time <= second.wall_time <= fourth.wall_time <= time.time()


def test_a_file_in_a_bucket_is_replaced_as_a_whole(bucket):
    file = EventFile(epath.Path("gs://bucket/run"))
    for step in range(3):
        file.add(step, {"train_loss": 0.5 * step})
    (content,) = bucket.values()
    _, *events = read(content.getvalue())
    assert [scalars(event)["train_loss"] for event in events] == [0, 0.5, 1]
