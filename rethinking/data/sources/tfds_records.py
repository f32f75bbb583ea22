"""Access to the records of a TFDS set on disk, with an error that names a bad record's place."""

import bisect
import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from rethinking.data.faults import BadRecord, damaged, system_cause, unreadable
from rethinking.data.records import Record, Records

SAMPLE = 16  # the number of records that are read to find out whether a split has labels


@dataclasses.dataclass(frozen=True)
class TfdsRecords(Records):
    """The records of a split by their index. `data` is TFDS's access to them.

    `files` holds the files of the split, with the number of records in each. `streamed` says
    whether bad records can be skipped.
    """

    split: str
    files: dict[pathlib.Path, int]
    num_classes: int
    data: Any
    streamed: bool = False

    def __len__(self) -> int:
        return sum(self.files.values())

    @property
    def num_open_files(self) -> int:
        """All files of the split: TFDS keeps each file open after its first record is read."""
        return len(self.files)

    def read(self, index: int) -> Record:
        """The encoded image and the label of record `index`.

        Raises BadRecord if the record cannot be read or its label is unknown, and InputError if the
        system cannot read the file.
        """
        encoded, label = self.read_any_label(index)
        if label is None:
            raise self.unusable(index, "it has no label")
        if not 0 <= label < self.num_classes:
            last = self.num_classes - 1
            raise self.unusable(index, f"its label is {label}, but the labels are 0 to {last}")
        return encoded, label

    def read_many(self, indices: Sequence[int]) -> list[Record]:
        """`read` for several records at once. This is faster if they are neighbours."""
        known = range(self.num_classes)
        try:
            found = self.data.__getitems__(list(indices))
            pairs = [(record["image"], record["label"]) for record in found]
            if all(image and label in known for image, label in pairs):
                return pairs
        except Exception:  # Reading one by one finds out which record is bad.
            pass
        return [self.read(index) for index in indices]

    def read_any_label(self, index: int) -> tuple[bytes, int | None]:
        """As `read`, but does not check the label, which may be missing."""
        try:
            record = self.data[index]
            encoded, label = record["image"], record["label"]
        except Exception as error:  # The reader and protobuf each raise their own errors.
            file, cause = self._place(index)[0], system_cause(error)
            if cause:
                raise unreadable(file, cause) from error
            raise self.unusable(index, f"{file.name} is damaged ({error})") from error
        if not encoded:
            raise self.unusable(index, "it has no image")
        return encoded, label

    def unusable(self, index: int, cause: str) -> BadRecord:
        """The error to raise for a bad record. It names the file and the record's place in it."""
        file, place = self._place(index)
        remedy = "Delete the folder and prepare the data set again."
        if self.streamed:
            remedy = (
                "Set config.data.skip_bad=True to continue without it, or delete the folder and "
                "prepare the data set again."
            )
        return BadRecord(
            f"{file}: record {place} cannot be used: {cause}. In the split "
            f"{self.split} its index is {index}. {remedy}"
        )

    def _place(self, index: int) -> tuple[pathlib.Path, int]:
        """The file of record `index`, and the record's place in it."""
        starts = list(itertools.accumulate(self.files.values(), initial=0))
        shard = bisect.bisect_right(starts, index) - 1
        return list(self.files)[shard], index - starts[shard]


def open_split(folder: pathlib.Path, split: str, decode: bool = False) -> Any:
    """TFDS's random access to the records of a split of the set in `folder`. None is read yet.

    A record is a dictionary. Two of its keys are `image` and `label`. With `decode` the image is an
    array, without it the stored bytes. Raises InputError if TFDS cannot open the set.
    """
    import tensorflow_datasets as tfds

    decoders = None if decode else {"image": tfds.decode.SkipDecoding()}
    try:
        builder = tfds.builder_from_directory(folder)
        return builder.as_data_source(split=split, decoders=decoders)
    except Exception as error:  # TFDS and protobuf each raise their own errors.
        cause = system_cause(error)
        if cause:
            raise unreadable(folder, cause) from error
        file = folder / "features.json"
        raise damaged(file, f"TFDS cannot open the set: {error}") from error


def has_labels(records: TfdsRecords) -> bool:
    """Whether the records have labels. Reads a few of them, from all over the split."""
    num = len(records)
    readable = False
    for number in range(min(num, SAMPLE)):
        try:
            _, label = records.read_any_label(number * num // min(num, SAMPLE))
        except BadRecord:
            continue
        readable = True
        if label is not None and 0 <= label < records.num_classes:
            return True
    # Bad records are named later, when all of them are read.
    return num > 0 and not readable
