"""Writing shards: Parquet files that are written one group of rows at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sealing import add_seal, verify_seal
from vlmcollate.data.shard_index import FACTS, GROUPS, REJECTED, SEAL, read_index
from vlmcollate.data.sources import import_parquet
from vlmcollate.data.writing import OutputFile, partial_file
from vlmcollate.errors import ConfigError

_ROWS_PER_GROUP = 32
_BYTES_PER_GROUP = 8 << 20
"""A group is read as a whole, so it holds several rows only if they are small."""
_MAX_ROW_BYTES = (1 << 31) - 2
_LEVELS = {"rest": -5}
"""At this level of zstd, pixels shrink to half in half the time of the default level."""


def write_shard(
    file: Path,
    rows: Iterable[Mapping[str, Any]],
    facts: Callable[[int], ShardFacts],
    rejected: Sequence[Mapping[str, Any]] = (),
) -> ShardFacts:
    """Writes a shard, which appears only when it is complete.

    Args:
        file: The file to write.
        rows: Rows from `row_from_sample`; one group of them is in memory at a time.
        facts: Called with the number of rows after the last one; returns the shard's facts.
        rejected: The entries of rejected rows, which may be added while the rows are read.

    Returns:
        The shard's facts with the seal.
    """
    import pyarrow as pa

    schema = _schema()
    groups: dict[str, list[Any]] = {"lengths": [], "rows": [], "bytes": [], "sums": []}
    with partial_file(file) as target:
        output = _ChecksumFile(target)
        with _writer(output, schema) as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                size, digest = output.cut()
                groups["lengths"] += [row["length"] for row in group]
                groups["rows"].append(len(group))
                groups["bytes"].append(size)
                groups["sums"].append(digest)
            found = facts(len(groups["lengths"]))
            texts: dict[str, Any] = {FACTS: attrs.asdict(found), GROUPS: groups}
            if rejected:
                texts[REJECTED] = list(rejected)
            writer.add_key_value_metadata(
                {name: json.dumps(text, sort_keys=True) for name, text in texts.items()}
            )
        return attrs.evolve(found, seal=_seal(target))


def _writer(output: _ChecksumFile, schema: Any) -> Any:
    return import_parquet().ParquetWriter(
        output,
        schema,
        compression="zstd",
        compression_level=_LEVELS,
        use_dictionary=False,
        write_statistics=False,
    )


def _seal(target: OutputFile) -> str:
    """Writes the seal into the index of a shard that is complete but for it."""
    index, start = read_index(target.data)
    target.data.seek(start)
    target.write(add_seal(index, SEAL))
    target.data.seek(start)
    return verify_seal(target.data.read(), SEAL, "its index was not sealed")


class _ChecksumFile:
    """A file that Arrow writes a shard into, which computes the checksum of each group."""

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
        """Does nothing, since nothing is buffered."""

    def cut(self) -> tuple[int, str]:
        """Returns the number of bytes since the last cut, and their checksum."""
        size, found = self._at - self._start, self._sum.hexdigest()
        self._start, self._sum = self._at, hashlib.sha256()
        return size, found


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        more = len(row["rest"]) + row["input_ids"].nbytes
        if more > _MAX_ROW_BYTES:
            raise ConfigError(
                f"a row of {row['length']} tokens takes {more / 1e9:.1f} GB, and Parquet holds at "
                "most 2.1 GB in one; lower max_length, or keep pixels as "
                "LocalMedia(dtype=torch.bfloat16)"
            )
        if group and (len(group) == _ROWS_PER_GROUP or size + more > _BYTES_PER_GROUP):
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
