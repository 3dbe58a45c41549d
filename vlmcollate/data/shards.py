"""Shards: files of Parquet that are written and read a group of rows at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.data.manifest import ShardFacts, partial_file
from vlmcollate.data.sources import parquet
from vlmcollate.errors import ConfigError

ROWS_PER_GROUP = 32
BYTES_PER_GROUP = 8 << 20
"""A group is read as a whole, so it holds several rows only where they are small."""
_OPEN_GROUPS = 8
_MOST_BYTES = (1 << 31) - 2
_FACTS = "vlmcollate"
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
    """
    schema, count = _schema(), 0
    import pyarrow as pa

    with (
        partial_file(file) as target,
        parquet().ParquetWriter(
            target,
            schema,
            compression="zstd",
            compression_level=_LEVELS,
            use_dictionary=False,
            write_statistics=False,
        ) as writer,
    ):
        for group in _groups(rows):
            count += len(group)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        told = facts(count)
        writer.add_key_value_metadata({_FACTS: json.dumps(attrs.asdict(told), sort_keys=True)})
    return told


def facts_of(file: Path) -> ShardFacts:
    """What a shard says of itself.

    Raises:
        ConfigError: It is no whole shard.
    """
    with _opened(file) as shard:
        told = (shard.metadata.metadata or {}).get(_FACTS.encode())
        if told is None:
            raise ValueError(f"its footer has no {_FACTS!r}")
        return ShardFacts(**json.loads(told))


@attrs.frozen(eq=False)
class Shard:
    """The rows of a shard.

    Attributes:
        file: Where it is.
        lengths: (N,) int64, the tokens of each row.
        starts: (G + 1,) int64, the row with which each group begins, and their number.
    """

    file: Path
    lengths: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, file: Path) -> Shard:
        """Looks at a shard.

        Raises:
            ConfigError: It is no whole shard.
        """
        with _opened(file) as shard:
            lengths = np.asarray(shard.read(["length"], use_threads=False)["length"], np.int64)
            groups = (shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups))
            return cls(file, lengths, np.cumsum([0, *groups]))

    def row(self, index: int) -> dict[str, Any]:
        """Reads one row, as far as `sample_of` needs it.

        Raises:
            ConfigError: The shard is missing or damaged.
        """
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        start, end = self.starts[group : group + 2].tolist()
        # a group of several rows is small, so a few may be kept: neighbours are often asked for
        read = _kept_group if end - start > 1 else _group
        table = read(os.fspath(self.file), _changed(self.file), group)
        ids, spans, keys, rest = (table[name][index - start] for name in _READ)
        return {
            "input_ids": ids.values.to_numpy(),
            "label_spans": spans.values.to_numpy(),
            "token_keys": keys.as_py(),
            "rest": rest.as_py(),
        }


def _group(file: str, changed: int, group: int) -> Any:
    del changed  # part of the key
    with _opened(Path(file)) as shard:
        return shard.read_row_group(group, _READ, use_threads=False)


_kept_group = lru_cache(maxsize=_OPEN_GROUPS)(_group)


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
def _opened(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise _missing(file)
    module = parquet()
    try:
        with module.ParquetFile(file) as shard:
            yield shard
    # what Arrow raises is one of these, too
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())  # some end with a line break
        raise ConfigError(
            f"'{file}' is damaged, or no shard of vlmcollate ({told}); "
            "remove it and prepare the dataset again, which does this shard anew"
        ) from error


def _missing(file: Path) -> ConfigError:
    return ConfigError(f"'{file}' is missing; prepare the dataset again, which goes on there")
