"""Shards: files of Parquet that are written and read a group of rows at a time."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sealing import DamagedError, check_sum, seal_of, sealed
from vlmcollate.data.sources import parquet
from vlmcollate.data.writing import OutputFile, partial_file
from vlmcollate.errors import ConfigError

ROWS_PER_GROUP = 32
BYTES_PER_GROUP = 8 << 20
"""A group is read as a whole, so it holds several rows only where they are small."""
_OPEN_GROUPS = 8
_MOST_BYTES = (1 << 31) - 2
_FACTS, _GROUPS, _SEAL = "vlmcollate", "vlmcollate.groups", "seal"
_MAGIC, _TAIL = b"PAR1", 8
"""What a Parquet file begins and ends with, and how long what follows the index is."""
_READ = ["input_ids", "label_spans", "token_keys", "rest"]
_LEVELS = {"rest": -5}
"""Pixels shrink to half at this level of zstd, in half the time of the default level."""


def write_shard(
    file: Path, rows: Iterable[Mapping[str, Any]], facts: Callable[[int], ShardFacts]
) -> ShardFacts:
    """Writes a shard, which appears only when it is complete.

    Args:
        file: Where to.
        rows: What `row_of` gives; one group of them is in memory at a time.
        facts: Is asked, once the rows were taken, what the shard says of itself, given their
            number.

    Returns:
        The same, with the seal.
    """
    import pyarrow as pa

    schema = _schema()
    groups: dict[str, list[Any]] = {"lengths": [], "rows": [], "bytes": [], "sums": []}
    with partial_file(file) as target:
        summed = _Summed(target)
        with parquet().ParquetWriter(
            summed,
            schema,
            compression="zstd",
            compression_level=_LEVELS,
            use_dictionary=False,
            write_statistics=False,
        ) as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                size, found = summed.cut()
                groups["lengths"] += [row["length"] for row in group]
                groups["rows"].append(len(group))
                groups["bytes"].append(size)
                groups["sums"].append(found)
            told = facts(len(groups["lengths"]))
            texts = {_FACTS: attrs.asdict(told), _GROUPS: groups}
            writer.add_key_value_metadata(
                {name: json.dumps(text, sort_keys=True) for name, text in texts.items()}
            )
        return attrs.evolve(told, seal=_seal(target))


def _seal(target: OutputFile) -> str:
    """Writes the seal into the index of a shard that is otherwise complete."""
    index, start = _index(target.data)
    target.data.seek(start)
    target.write(sealed(index, _SEAL))
    target.data.seek(start)
    return seal_of(target.data.read(), _SEAL, "its index was not sealed")


@attrs.frozen(eq=False)
class Shard:
    """The rows of a shard, none of which is read before its bytes have the right sum.

    Attributes:
        file: Where it is.
        facts: What it says of itself.
        lengths: (N,) int64, the tokens of each row.
        starts: (G + 1,) int64, the row with which each group begins, and their number.
        edges: (G + 1,) int64, the byte with which each group begins, and the end of the last.
        sums: (G,) the SHA-256 of each group's bytes.
    """

    file: Path
    facts: ShardFacts
    lengths: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    sums: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, file: Path) -> Shard:
        """Looks at a shard's index.

        Raises:
            ConfigError: It is no whole shard.
        """
        with _opened(file) as data:
            index, seal = _sealed_index(data)
            told = _metadata(index).metadata
            groups = json.loads(told[_GROUPS.encode()])
            return cls(
                file=file,
                facts=ShardFacts(**{**json.loads(told[_FACTS.encode()]), _SEAL: seal}),
                lengths=np.asarray(groups["lengths"], np.int64),
                starts=np.cumsum([0, *groups["rows"]]),
                edges=np.cumsum([0, *groups["bytes"]]),
                sums=np.asarray(groups["sums"], "S64"),
            )

    def check_origin(self, run: str) -> None:
        """Refuses a shard that was put here from elsewhere.

        Raises:
            ConfigError: It is of another run, or another shard of this one.
        """
        remedy = "put the right shard back, or remove this one and prepare the dataset again"
        if self.facts.run != run:
            raise ConfigError(
                f"'{self.file}' is of another dataset: found a shard of the run "
                f"{self.facts.run[:12]}..., expected {run[:12]}...; {remedy}"
            )
        if self.facts.file != self.file.name:
            raise ConfigError(
                f"'{self.file}' is another shard: found what was written as "
                f"'{self.facts.file}', expected '{self.file.name}'; {remedy}"
            )

    def check_groups(self) -> None:
        """Reads the bytes of all rows.

        Raises:
            ConfigError: They are not those that were written.
        """
        with _opened(self.file) as data:
            for group in range(len(self.sums)):
                self._bytes(data, group)

    def row(self, index: int) -> dict[str, Any]:
        """Reads one row, as far as `sample_of` needs it.

        Raises:
            ConfigError: The shard is missing or damaged.
        """
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        start, end = self.starts[group : group + 2].tolist()
        # a group of several rows is small, so a few may be kept: neighbours are often asked for
        read = _kept_group if end - start > 1 else _group
        table = read(self, _changed(self.file), group)
        ids, spans, keys, rest = (table[name][index - start] for name in _READ)
        return {
            "input_ids": ids.values.to_numpy(),
            "label_spans": spans.values.to_numpy(),
            "token_keys": keys.as_py(),
            "rest": rest.as_py(),
        }

    def group(self, group: int) -> Any:
        """Reads a group of rows. Arrow, which damage can crash, gets bytes with the right sum.

        Raises:
            ConfigError: The shard is missing or damaged.
        """
        with _opened(self.file) as data:
            index, seal = _sealed_index(data)
            if seal != self.facts.seal:
                raise DamagedError("it was replaced since it was opened")
            part = _Part(self._bytes(data, group), int(self.edges[group]))
            with parquet().ParquetFile(part, metadata=_metadata(index)) as shard:
                return shard.read_row_group(group, _READ, use_threads=False)

    def _bytes(self, data: BinaryIO, group: int) -> bytes:
        start, end = self.edges[group : group + 2].tolist()
        data.seek(start)
        found = data.read(end - start)
        first, after = self.starts[group : group + 2].tolist()
        rows = f"rows {first} to {after - 1}" if after - first > 1 else f"row {first}"
        check_sum(found, self.sums[group].decode(), f"the bytes of {rows} were changed")
        return found


def _group(shard: Shard, changed: int, group: int) -> Any:
    del changed  # part of the key
    return shard.group(group)


_kept_group = lru_cache(maxsize=_OPEN_GROUPS)(_group)


class _Part(io.RawIOBase):
    """A file of which only the bytes of one group are there, with the places of the whole."""

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
            raise DamagedError("its index names bytes outside of the group")
        self._at += size
        return found


class _Summed:
    """What Arrow writes a shard into, which sums up the groups."""

    closed = False

    def __init__(self, target: OutputFile) -> None:
        self._target, self._sum = target, hashlib.sha256()
        self._start = self._at = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._target.write(data)
        self._sum.update(data)
        self._at += size
        return size

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Does nothing, since nothing waits in memory."""

    def cut(self) -> tuple[int, str]:
        """How many bytes came since the last cut, and their sum."""
        size, found = self._at - self._start, self._sum.hexdigest()
        self._start, self._sum = self._at, hashlib.sha256()
        return size, found


def _index(data: BinaryIO) -> tuple[bytes, int]:
    """A shard's index, which is Parquet's footer, and where it begins."""
    size = data.seek(0, os.SEEK_END)
    data.seek(max(size - _TAIL, 0))
    tail = data.read(_TAIL)
    start = size - _TAIL - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or start < len(_MAGIC):
        raise DamagedError("it does not end as Parquet does")
    data.seek(start)
    return data.read(), start


def _sealed_index(data: BinaryIO) -> tuple[bytes, str]:
    index, _ = _index(data)
    return index, seal_of(index, _SEAL, "its index was changed")


def _metadata(index: bytes) -> Any:
    import pyarrow as pa

    return parquet().read_metadata(pa.BufferReader(_MAGIC + index))


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        more = len(row["rest"]) + row["input_ids"].nbytes
        if more > _MOST_BYTES:
            raise ConfigError(
                f"a row of {row['length']} tokens takes {more / 1e9:.1f} GB, and Parquet holds at "
                "most 2.1 GB in one; lower max_length, or keep pixels as "
                "LocalMedia(dtype=torch.bfloat16)"
            )
        if group and (len(group) == ROWS_PER_GROUP or size + more > BYTES_PER_GROUP):
            yield group
            group, size = [], 0
        group.append(row)
        size += more
    if group:
        yield group


def _schema() -> Any:
    import pyarrow as pa

    ints = pa.list_(pa.int32())
    return pa.schema(
        {
            "source_rows": pa.list_(pa.int64()),
            "input_ids": ints,
            "label_spans": ints,
            "length": pa.int32(),
            "media_counts": pa.map_(pa.string(), pa.int32()),
            "grids": pa.map_(pa.string(), pa.list_(pa.int64())),
            "token_keys": pa.list_(pa.string()),
            "rest": pa.binary(),
        }
    )


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise _missing(file) from error


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if not file.is_file():
        raise _missing(file)
    try:
        with file.open("rb") as data:
            yield data
    except ConfigError:  # there is no pyarrow
        raise
    # what Arrow raises is one of these, too
    except (DamagedError, OSError, ValueError, KeyError, TypeError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())  # some end with a line break
        raise ConfigError(
            f"'{file}' is damaged, or no shard of vlmcollate ({told}); "
            "remove it and prepare the dataset again, which does this shard anew"
        ) from error


def _missing(file: Path) -> ConfigError:
    return ConfigError(f"'{file}' is missing; prepare the dataset again, which goes on there")
