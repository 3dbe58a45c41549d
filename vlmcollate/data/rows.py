"""Reading the rows of a dataset one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.data.sources import Source, read_piece
from vlmcollate.errors import ConfigError

_ROWS_PER_PIECE = 64
_RANGE = re.compile(r"(-?\d+)|(-?\d+)?:(-?\d+)?", re.ASCII)


@attrs.frozen
class Rows:
    """Consecutive rows of a dataset.

    Attributes:
        source: The dataset.
        start: The first row.
        stop: The row after the last one.
    """

    source: Source
    start: int
    stop: int

    @classmethod
    def of(cls, path: str | Path, text: str = ":") -> Rows:
        """Finds the rows of a range, which behaves as a slice of a list does.

        Args:
            path: A file or a folder, as for `prepare_dataset`.
            text: A row such as `"3"` or `"-1"`, or a range such as `"0:10"`, `"5:"` or `"-3:"`.

        Raises:
            ConfigError: There is no such file or row, the file's format is unknown, it has no rows,
                or the text is neither a row nor a range.
        """
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                f"rows is wrong: found {text!r}, expected a number or a range such as 0:10 or -3:"
            )
        source = Source.of(path, rows_per_shard=_ROWS_PER_PIECE, hashed=False)
        total = sum(piece.rows for piece in source.pieces)
        row, first, last = (None if part is None else int(part) for part in found.groups())
        if row is None:
            start, stop, _ = slice(first, last).indices(total)
        else:
            start = row if row >= 0 else row + total
            stop = start + 1
        if not 0 <= start < min(stop, total):
            raise ConfigError(
                f"{str(path)!r} has no row in {text!r}: found {total:,} rows, numbered from 0"
            )
        return cls(source, start, stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yields each row after its number; a `ConversationError` if its line is no JSON."""
        before = 0
        for piece in self.source.pieces:
            number, before = before, before + piece.rows
            if before <= self.start:
                continue
            for row in read_piece(piece, self.source.dataset):
                if number >= self.stop:
                    return
                if number >= self.start:
                    yield number, row
                number += 1
