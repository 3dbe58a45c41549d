"""Writing shards: streams of Arrow that are written one group of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from vlmcollate.data.columns import (
    RAW_BYTES,
    REST,
    arrow_schema,
    batch_from_samples,
    is_raw,
)
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sealing import checksum, fast_checksum
from vlmcollate.data.shard_index import STREAM_END, ShardIndex, split_tail
from vlmcollate.data.writing import partial_file
from vlmcollate.sample import EncodedSample

Row = tuple[Sequence[int], EncodedSample]
"""The numbers of a sample's rows in the source, and the sample."""
_ROWS_PER_GROUP = 32
_BYTES_PER_GROUP = RAW_BYTES
"""A group is read as a whole, so it holds several rows only if they are small."""
_ROWS_PER_CHUNK = 8 * _ROWS_PER_GROUP
_BYTES_PER_CHUNK = 8 << 20
_BYTES_PER_TOKEN = 64
"""Those in memory, of eight tensors of integers."""


def write_shard(
    file: Path,
    rows: Iterable[Row],
    facts: Callable[[int], ShardFacts],
    rejected: Sequence[Mapping[str, Any]] = (),
) -> ShardFacts:
    """Writes a shard, which appears only when it is complete.

    Args:
        file: The file to write.
        rows: The rows; 256 of them, or 8 MiB, are in memory at a time.
        facts: Called with the number of rows after the last one; returns the shard's facts.
        rejected: The entries of rejected rows, which may be added while the rows are read.

    Returns:
        The shard's facts with the seal.
    """
    schema = memoryview(arrow_schema().serialize())
    lengths: list[int] = []
    groups: list[tuple[int, int, int, bytes]] = []
    with partial_file(file) as target:
        target.write(schema)
        for some in _chunks(rows):
            lengths += [len(sample) for _, sample in some]
            for count, raw, message in _messages(some):
                target.write(message)
                groups.append((count, message.nbytes, raw, fast_checksum(message)))
        target.write(STREAM_END)
        found = facts(len(lengths))
        counts, sizes, raws, sums = zip(*groups, strict=True) if groups else ((), (), (), ())
        index = ShardIndex(
            facts=attrs.asdict(found, filter=attrs.filters.exclude("seal")),
            rejected=tuple(rejected),
            schema=(schema.nbytes, checksum(schema)),
            lengths=np.asarray(lengths, "<i4"),
            rows=np.asarray(counts, "<i4"),
            sizes=np.asarray(sizes, "<i8"),
            raws=np.asarray(raws, "<i4"),
            sums=np.frombuffer(b"".join(sums), "V16"),
        ).to_bytes()
        target.write(index)
    return attrs.evolve(found, seal=split_tail(index)[0])


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields rows that are converted together, which takes a tenth of the time of each alone."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += _BYTES_PER_TOKEN * len(row[1]) + _media_size(row[1])
        if len(chunk) == _ROWS_PER_CHUNK or size >= _BYTES_PER_CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _messages(rows: Sequence[Row]) -> Iterator[tuple[int, int, memoryview]]:
    """Yields each group: its rows, its first raw byte or 0, and its bytes in a stream of Arrow."""
    samples = [sample for _, sample in rows]
    batch = batch_from_samples(samples, [numbers for numbers, _ in rows])
    for start, end in _groups(samples):
        has_media = any(sample.media for sample in samples[start:end])
        message = _message(batch.slice(start, end - start), compresses=not has_media)
        yield end - start, _raw_start(message) if is_raw(samples[start]) else 0, message


def _raw_start(message: memoryview) -> int:
    """Returns the first byte of the column `rest` in a message of one row."""
    import pyarrow as pa

    whole = pa.py_buffer(message)
    rest = pa.ipc.read_record_batch(whole, arrow_schema()).column(REST).buffers()[-1]
    return int(rest.address - whole.address)


def _groups(samples: Sequence[EncodedSample]) -> Iterator[tuple[int, int]]:
    """Yields the first row of each group, and the one after its last."""
    start, size = 0, 0
    for row, sample in enumerate(samples):
        more = _size(sample)
        if row > start and (row - start == _ROWS_PER_GROUP or size + more > _BYTES_PER_GROUP):
            yield start, row
            start, size = row, 0
        size += more
    yield start, len(samples)


def _size(sample: EncodedSample) -> int:
    """Returns about the bytes of a row."""
    return 4 * len(sample) + _media_size(sample)


def _media_size(sample: EncodedSample) -> int:
    return sum(tensor.nbytes for tensor in sample.media.values())


def _message(batch: Any, *, compresses: bool) -> memoryview:
    """Returns the bytes of a batch in a stream of Arrow.

    Text is compressed, since it shrinks to a third; media is not, since decompressing it costs
    several times as much as copying it.
    """
    import pyarrow as pa

    if not compresses:
        return memoryview(batch.serialize(memory_pool=pa.system_memory_pool()))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    stream = memoryview(sink.getvalue())
    return stream[arrow_schema().serialize().size : stream.nbytes - len(STREAM_END)]
