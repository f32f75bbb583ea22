"""TensorBoard's event files, as tensorboardX's own messages and checksums read them."""

import math
import struct
import time

import numpy as np
from etils import epath
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from rethinking.experiments.event_file import EventFile


def read(content):
    """The events in a file's bytes, their checksums compared."""
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
