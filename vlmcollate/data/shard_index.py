"""The index of a shard, which is the footer of its Parquet file."""

from __future__ import annotations

import os
from typing import BinaryIO

from vlmcollate.data.sealing import DamagedError

FACTS, GROUPS, SEAL = "vlmcollate", "vlmcollate.groups", "seal"
"""The keys of a shard's facts, of the positions of its groups of rows, and of its seal."""
REJECTED = "vlmcollate.rejected"
"""The key of the rows that are not in the shard, if there are any."""
MAGIC = b"PAR1"
"""The first and last bytes of a Parquet file."""
_TAIL = 8
"""The number of bytes after the index."""


def read_index(data: BinaryIO) -> tuple[bytes, int]:
    """Reads a shard's index, which is Parquet's footer; returns it and its first position."""
    size = data.seek(0, os.SEEK_END)
    data.seek(max(size - _TAIL, 0))
    tail = data.read(_TAIL)
    start = size - _TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        raise DamagedError("it does not end like a Parquet file")
    data.seek(start)
    return data.read(), start
