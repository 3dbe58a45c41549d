"""Streams of rows, which are read once and from the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

from vlmcollate.data.source_hash import UnknownContentError, hash_rows
from vlmcollate.data.sources import Piece
from vlmcollate.errors import ConfigError
from vlmcollate.mixture.reading import read_row
from vlmcollate.mixture.row_snapshot import snapshot

_END: Any = object()


def is_stream(source: object) -> bool:
    """Whether a source is an iterable, or a function that returns one, and no other dataset."""
    has_places = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return not has_places and (isinstance(source, Iterable) or callable(source))


def cut_stream(source: Any, rows_per_shard: int) -> Iterator[Piece]:
    """Reads the pieces of a stream, each with its rows and their hash.

    Args:
        source: An iterable of rows, or a function that returns one.
        rows_per_shard: The maximum rows of a piece, which are in memory together.

    Raises:
        ConfigError: The function returns no iterable, or the stream has no rows.
        SourceError: The stream raised an error, after which it cannot be read further.
    """
    stream = source if isinstance(source, Iterable) else read_row("stream", 0, source)
    if not isinstance(stream, Iterable):
        raise ConfigError(
            f"the source is wrong: found a function that returns {type(stream).__name__}, expected "
            "one that returns an iterable of rows"
        )
    rows = map(snapshot, _read(stream))  # a stream may write to what it yielded before
    for first in count(0, rows_per_shard):
        found = list(islice(rows, rows_per_shard))
        if found:
            yield Piece(
                source="stream",
                kind="stream",
                first=first,
                rows=len(found),
                examples=tuple(found),
                digest=_digest(found),
            )
        if len(found) < rows_per_shard:
            if not found and not first:
                raise ConfigError("the stream has no rows")
            return


def _read(stream: Iterable[Any]) -> Iterator[Any]:
    """Yields the rows of a stream, whose errors name the row."""
    rows = read_row("stream", 0, partial(iter, stream))
    for number in count():
        row = read_row("stream", number, partial(next, rows, _END))
        if row is _END:
            return
        yield row


def _digest(rows: list[Any]) -> str:
    try:
        return hash_rows(rows)
    except UnknownContentError:
        return ""
