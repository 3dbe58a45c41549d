"""Reading the rows of a dataset one after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmcollate.data.sources import Source, rows_of
from vlmcollate.errors import ConfigError

_AT_A_TIME = 64


def read_rows(
    path: str | Path, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Reads rows one after another.

    Args:
        path: A file or a folder, as `prepare_dataset` takes them.
        start: The first row.
        stop: The row after the last, or `None` for all.

    Yields:
        The number of each row from 0 on, and the row: a dict as the dataset has it, or a
        `ConversationError` where a line is no JSON.

    Raises:
        ConfigError: There is no such file, or nothing that reads it.
    """
    source = Source.of(path, rows_per_shard=_AT_A_TIME)
    before = 0
    for piece in source.pieces:
        number, before = before, before + piece.rows
        if before <= start:
            continue
        for row in rows_of(piece, source.dataset):
            if stop is not None and number >= stop:
                return
            if number >= start:
                yield number, row
            number += 1


def row_range(text: str) -> tuple[int, int | None]:
    """Reads a range of rows.

    Args:
        text: A row such as `"3"`, or a range such as `"0:10"`, `"5:"` or `":5"`.

    Returns:
        The first row, and the row after the last or `None`.

    Raises:
        ConfigError: It is neither.

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
