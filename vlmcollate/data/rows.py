"""Reading the rows of a dataset one after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmcollate.data.sources import Source, read_piece
from vlmcollate.errors import ConfigError

_ROWS_PER_PIECE = 64


def read_rows(
    path: str | Path, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Reads rows one after another.

    Args:
        path: A file or a folder, as for `prepare_dataset`.
        start: The first row.
        stop: The row after the last one, or `None` for all.

    Yields:
        The number of each row, counted from 0, and the row of the dataset, or a `ConversationError`
        if its line is no JSON.

    Raises:
        ConfigError: There is no such file, its format is unknown, or it has no rows.
    """
    source = Source.of(path, rows_per_shard=_ROWS_PER_PIECE)
    before = 0
    for piece in source.pieces:
        number, before = before, before + piece.rows
        if before <= start:
            continue
        for row in read_piece(piece, source.dataset):
            if stop is not None and number >= stop:
                return
            if number >= start:
                yield number, row
            number += 1


def row_range(text: str) -> tuple[int, int | None]:
    """Parses a range of rows.

    Args:
        text: A row such as `"3"`, or a range such as `"0:10"`, `"5:"` or `":5"`.

    Returns:
        The first row, and the row after the last one, or `None` for all.

    Raises:
        ConfigError: The text is neither a row nor a range.

    Example:
        >>> row_range("3"), row_range("5:")
        ((3, 4), (5, None))
    """
    first, colon, last = text.partition(":")
    if not colon and first.isdecimal():
        return int(first), int(first) + 1
    if colon and all(part.isdecimal() or not part for part in (first, last)):
        return int(first or 0), int(last) if last else None
    raise ConfigError(f"rows must be a number or a range such as 0:10, not {text!r}")
