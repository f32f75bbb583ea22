"""Access to encoded images and their labels, one by one. Each source of images has its own."""

import abc
from collections.abc import Sequence

from rethinking.data.faults import BadRecord

Record = tuple[bytes, int]  # an encoded image and its label


class Records(abc.ABC):
    """The records of a split by their index. Threads and worker processes use it."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of records."""

    @abc.abstractmethod
    def read(self, index: int) -> Record:
        """The encoded image and the label of record `index`.

        Raises BadRecord if the record cannot be used, and InputError if the system cannot read the
        file.
        """

    def read_many(self, indices: Sequence[int]) -> list[Record]:
        """`read` for several records at once. Some sources are faster then."""
        return [self.read(index) for index in indices]

    @property
    def num_open_files(self) -> int:
        """The number of files that stay open once their records are read."""
        return 0

    @abc.abstractmethod
    def unusable(self, index: int, cause: str) -> BadRecord:
        """The error to raise for a bad record. It names the file and the record's place in it."""
