"""Access to the records of a TFDS set on disk, with an error that names a bad record's place."""

import bisect
import dataclasses
import itertools
from typing import Any

from rethinking.data.source import Source
from rethinking.errors import InputError


def open_records(source: Source, split: str, decode: bool = True) -> Any:
    """TFDS's random access to the records of the split "train" or "test".

    A record is a dictionary. Two of its keys are `image` and `label`. With `decode` the image is an
    array, without it the stored bytes.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(source.folder)
    name = split if split in builder.info.splits else "validation"
    decoders = None if decode else {"image": tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=name, decoders=decoders)


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a split on disk, by their index. `data` is TFDS's random access to them."""

    source: Source
    split: str
    data: Any

    def read(self, index: int) -> tuple[bytes, int]:
        """The encoded image and the label of record `index`.

        Raises InputError if the record cannot be read or its label is unknown.
        """
        try:
            record = self.data[index]
            encoded, label = record["image"], record["label"]
        except Exception as error:  # The reader and protobuf each raise their own errors.
            raise self.unusable(index, str(error)) from error
        if encoded is None or label is None:
            raise self.unusable(index, "it has no image or no label")
        num_classes = self.source.info.num_classes
        if not 0 <= label < num_classes:
            raise self.unusable(index, f"its label is {label}, but there are {num_classes} classes")
        return encoded, label

    def unusable(self, index: int, cause: str) -> InputError:
        """The error to raise for a bad record. It names the file and the record's place in it."""
        files = self.source.shards[self.split]
        starts = list(itertools.accumulate(files.values(), initial=0))
        shard = bisect.bisect_right(starts, index) - 1
        return InputError(
            f"{list(files)[shard]}: record {index - starts[shard]} cannot be used: {cause}. In the "
            f"split {self.split} its index is {index}. Set skip_bad=True to continue without it, "
            "or delete the folder and prepare the data set again."
        )
