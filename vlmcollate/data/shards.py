"""Reading shards: Parquet files that are read one group of rows at a time.

Shapes: N rows, G groups of rows.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sealing import DamagedError, verify_checksum, verify_seal
from vlmcollate.data.shard_index import FACTS, GROUPS, MAGIC, REJECTED, SEAL, read_index
from vlmcollate.data.sources import import_parquet
from vlmcollate.errors import ConfigError

_CACHED_GROUPS = 8
_COLUMNS = ["input_ids", "label_spans", "token_keys", "rest"]
"""The columns that `sample_from_row` needs."""


@attrs.frozen(eq=False)
class Shard:
    """The rows of a shard, each read only after the checksum of its bytes was verified.

    Attributes:
        file: The file.
        facts: The facts in its index.
        lengths: (N,) int64, the tokens of each row.
        starts: (G + 1,) int64, the first row of each group, and the number of rows.
        edges: (G + 1,) int64, the first byte of each group, and the end of the last.
        sums: (G,) the SHA-256 of each group's bytes.
        rejected: The entries of its rejected rows; see `rejection`.
    """

    file: Path
    facts: ShardFacts
    lengths: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    sums: npt.NDArray[np.bytes_]
    rejected: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, file: Path) -> Shard:
        """Reads the index of a shard.

        Raises:
            ConfigError: The file is missing, damaged or no shard.
        """
        with _open(file) as data:
            index, seal = _sealed_index(data)
            metadata = _metadata(index).metadata
            groups = json.loads(metadata[GROUPS.encode()])
            return cls(
                file=file,
                facts=ShardFacts(**{**json.loads(metadata[FACTS.encode()]), SEAL: seal}),
                lengths=np.asarray(groups["lengths"], np.int64),
                starts=np.cumsum([0, *groups["rows"]]),
                edges=np.cumsum([0, *groups["bytes"]]),
                sums=np.asarray(groups["sums"], "S64"),
                rejected=tuple(json.loads(metadata.get(REJECTED.encode(), b"[]"))),
            )

    def check_origin(self, run: str) -> None:
        """Refuses a shard of another run, or another shard of this run.

        Raises:
            ConfigError: The shard belongs elsewhere.
        """
        remedy = "put the right shard back, or remove this one and prepare the dataset again"
        if self.facts.run != run:
            raise ConfigError(
                f"'{self.file}' is of another dataset: found run {self.facts.run[:12]}..., "
                f"expected {run[:12]}...; {remedy}"
            )
        if self.facts.file != self.file.name:
            raise ConfigError(
                f"'{self.file}' is another shard: found '{self.facts.file}', "
                f"expected '{self.file.name}'; {remedy}"
            )

    def check_groups(self) -> None:
        """Verifies the bytes of all rows.

        Raises:
            ConfigError: The bytes differ from those that were written.
        """
        with _open(self.file) as data:
            for group in range(len(self.sums)):
                self._read_bytes(data, group)

    def read_row(self, index: int) -> dict[str, Any]:
        """Reads the columns of one row that `sample_from_row` needs.

        Raises:
            ConfigError: The shard is missing or damaged.
        """
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        start, end = self.starts[group : group + 2].tolist()
        # a group of several rows is small, so a few are cached: neighbours are often read together
        read = _cached_group if end - start > 1 else _read_group
        table = read(self, _modified_at(self.file), group)
        ids, spans, keys, rest = (table[name][index - start] for name in _COLUMNS)
        return {
            "input_ids": ids.values.to_numpy(),
            "label_spans": spans.values.to_numpy(),
            "token_keys": keys.as_py(),
            "rest": rest.as_py(),
        }

    def read_group(self, group: int) -> Any:
        """Reads a group of rows; verifies its bytes first, since damage can crash Arrow.

        Raises:
            ConfigError: The shard is missing or damaged.
        """
        with _open(self.file) as data:
            index, seal = _sealed_index(data)
            if seal != self.facts.seal:
                raise DamagedError("it was replaced since it was opened")
            part = _GroupFile(self._read_bytes(data, group), int(self.edges[group]))
            with import_parquet().ParquetFile(part, metadata=_metadata(index)) as shard:
                return shard.read_row_group(group, _COLUMNS, use_threads=False)

    def _read_bytes(self, data: BinaryIO, group: int) -> bytes:
        start, end = self.edges[group : group + 2].tolist()
        data.seek(start)
        found = data.read(end - start)
        first, after = self.starts[group : group + 2].tolist()
        rows = f"rows {first} to {after - 1}" if after - first > 1 else f"row {first}"
        verify_checksum(found, self.sums[group].decode(), f"the bytes of {rows} were changed")
        return found


def _read_group(shard: Shard, modified_at: int, group: int) -> Any:
    del modified_at  # part of the key
    return shard.read_group(group)


_cached_group = lru_cache(maxsize=_CACHED_GROUPS)(_read_group)


class _GroupFile(io.RawIOBase):
    """A file that holds only the bytes of one group, at their positions in the whole file."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start, self._at = memoryview(data), start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = self._start + len(self._data)
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: end}[whence]
        return self._at

    def read(self, size: int = -1) -> Any:
        start = self._at - self._start
        found = self._data[max(start, 0) : max(start + size, 0)]
        if len(found) != size:
            raise DamagedError("its index names bytes outside the group")
        self._at += size
        return found


def _sealed_index(data: BinaryIO) -> tuple[bytes, str]:
    index, _ = read_index(data)
    return index, verify_seal(index, SEAL, "its index was changed")


def _metadata(index: bytes) -> Any:
    import pyarrow as pa

    return import_parquet().read_metadata(pa.BufferReader(MAGIC + index))


def _modified_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise _missing_error(file) from error


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    if not file.is_file():
        raise _missing_error(file)
    try:
        with file.open("rb") as data:
            yield data
    except ConfigError:  # pyarrow is not installed
        raise
    # the exceptions of Arrow are among these
    except (DamagedError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())  # some end with a line break
        raise ConfigError(
            f"'{file}' is damaged, or no shard of vlmcollate ({reason}); "
            "remove it and prepare the dataset again, which rewrites only this shard"
        ) from error


def _missing_error(file: Path) -> ConfigError:
    return ConfigError(
        f"'{file}' is missing; prepare the dataset again, which writes only what is missing"
    )
