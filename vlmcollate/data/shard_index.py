"""The index of a shard, behind its rows.

A shard is a stream of Arrow: a schema, groups of rows, and the stream's end. Its index follows,
then the seal: the SHA-256 of the index, its size and a mark. Readers of Arrow stop at the stream's
end.

Shapes: N rows, G groups of rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.data.sealing import DamagedError, checksum, verify_checksum

STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""The bytes that end a stream of Arrow."""
MARK = b"vlmcshd5"
"""The last bytes of a shard."""
TAIL = 64 + 8 + len(MARK)
"""The number of bytes of the seal, the index's size and the mark."""
_SUM = "V16"
_START = 16
"""The first byte after the number of rows and of groups."""


@attrs.frozen(eq=False, kw_only=True)
class ShardIndex:
    """What a shard knows about its rows.

    Attributes:
        facts: The facts of the shard but for the seal.
        rejected: The entries of its rejected rows; see `rejection`.
        schema: The bytes of the schema, and their checksum.
        lengths: (N,) int32, the tokens of each row.
        rows: (G,) int32, the number of rows of each group.
        sizes: (G,) int64, the bytes of each group.
        raws: (G,) int32, the first byte of the column `rest` of each group of one row that is raw,
            after the group's first byte; 0 for other groups.
        sums: (G,) the checksum of each group's bytes.
    """

    facts: Mapping[str, Any]
    rejected: tuple[Mapping[str, Any], ...]
    schema: tuple[int, str]
    lengths: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    raws: npt.NDArray[np.int32]
    sums: npt.NDArray[np.void]

    def to_bytes(self) -> bytes:
        """Converts the index to bytes, with the tail."""
        head = {"facts": self.facts, "rejected": self.rejected, "schema": self.schema}
        counts = np.asarray([len(self.lengths), len(self.rows)], "<i8")
        arrays = (counts, self.lengths, self.rows, self.sizes, self.raws, self.sums)
        text = json.dumps(head, sort_keys=True).encode()
        index = b"".join([*(array.tobytes() for array in arrays), text])
        return index + checksum(index).encode() + len(index).to_bytes(8, "little") + MARK

    @classmethod
    def from_bytes(cls, index: bytes, seal: str) -> ShardIndex:
        """Restores an index without its tail.

        Raises:
            DamagedError: The bytes differ from those that were written.
        """
        verify_checksum(index, seal, "its index was changed")
        rows, groups = _counts(index)
        arrays, start = {}, _START
        for name, kind, count in (
            ("lengths", "<i4", rows),
            ("rows", "<i4", groups),
            ("sizes", "<i8", groups),
            ("raws", "<i4", groups),
            ("sums", _SUM, groups),
        ):
            arrays[name] = np.frombuffer(index, kind, count, start)
            start += arrays[name].nbytes
        head = json.loads(index[start:])
        return cls(
            facts=head["facts"],
            rejected=tuple(head["rejected"]),
            schema=tuple(head["schema"]),
            **arrays,
        )


def lengths_from_index(index: bytes) -> npt.NDArray[np.int32]:
    """Returns (N,) the lengths in an index whose checksum was verified, and reads nothing else."""
    return np.frombuffer(index, "<i4", _counts(index)[0], _START)


def _counts(index: bytes) -> tuple[int, int]:
    """Returns N and G."""
    return int.from_bytes(index[:8], "little"), int.from_bytes(index[8:16], "little")


def split_tail(tail: bytes) -> tuple[str, int]:
    """Returns the seal and the size of the index in a shard's last bytes.

    Raises:
        DamagedError: They are no tail of a shard.
    """
    if len(tail) < TAIL or not tail.endswith(MARK):
        raise DamagedError("it does not end like a shard")
    tail = tail[-TAIL:]
    return tail[:64].decode("ascii", "replace"), int.from_bytes(tail[64:72], "little")
