"""TensorBoard's event files, for scalars only, written without TensorFlow or PyTorch.

The usual writers import one of these frameworks where it is installed. That takes seconds in each
process. A file is a sequence of records, and each record holds one `Event` message of protocol
buffers. TensorFlow's core/lib/io/record_writer.h describes the record; event.proto and
summary.proto in TensorBoard's compat/proto describe the message.
"""

import os
import socket
import struct
import time

import numpy as np
from etils import epath

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed


class EventFile:
    """A new event file in a folder, which may be in a bucket."""

    def __init__(self, folder: epath.Path):
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._in_bucket = "://" in os.fspath(folder)
        self._content = b""
        version = _bytes_field(3, b"brain.Event:2")
        self._append(version)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Adds the values of a step. The file contains them when this returns."""
        summary = b""
        for tag, value in scalars.items():
            with np.errstate(over="ignore"):
                number = np.float32(value)
            value_message = _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", number)
            summary += _bytes_field(1, value_message)
        self._append(b"\x10" + _varint(step) + _bytes_field(5, summary))

    def _append(self, fields: bytes) -> None:
        record = _record(b"\x09" + struct.pack("<d", time.time()) + fields)
        if self._in_bucket:
            # A file in a bucket can be replaced, but not added to.
            self._content += record
            self._path.write_bytes(self._content)
        else:
            with open(self._path, "ab") as file:
                file.write(record)


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _checksum(length) + message + _checksum(message)


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    rotated = (crc >> 15) | (crc << 17)
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _make_table() -> list[int]:
    """The CRC-32C of each byte."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            low_bit = crc & 1
            crc >>= 1
            if low_bit:
                crc ^= _POLYNOMIAL
        table.append(crc)
    return table


_TABLE = _make_table()


def _bytes_field(number: int, content: bytes) -> bytes:
    """A field with text or with another message: its number, its length and its content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """A non-negative integer, in groups of seven bits from the lowest on.

    The eighth bit of a group says that another one follows.
    """
    groups = []
    while number >= 128:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
