"""The rows that a run rejected, with the reasons and the remedies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmcollate.data.shards import Shard
from vlmcollate.data.writing import disk_errors, partial_file
from vlmcollate.errors import (
    ConversationError,
    LabelError,
    MediaError,
    MediaMismatchError,
    SampleError,
    SampleTooLongError,
)

REJECTED = "rejected.jsonl"
_KEYS = ("source", "row", "error", "reason", "remedy")
_REMEDIES: tuple[tuple[type[SampleError], str], ...] = (
    (MediaMismatchError, "give the row as many media items as its text has places for"),
    (MediaError, "replace the media, or remove the row"),
    (LabelError, "correct the assistant turns, or remove the row"),
    (SampleTooLongError, "raise max_length, or set on_overlong"),
    (ConversationError, "correct the row, or remove it"),
    (SampleError, "correct the row, or remove it"),
)
"""The remedies for messages that end without one."""


def rejection(error: SampleError, *, source: str, row: int) -> dict[str, Any]:
    """Returns the entry of a row in `rejected.jsonl`.

    Args:
        error: The reason for the rejection.
        source: The file of the row, or the kind of its dataset.
        row: The number of the row there.

    Example:
        >>> error = ConversationError("has no answer; add one", where="messages")
        >>> entry = rejection(error, source="a.jsonl", row=3)
        >>> entry["reason"], entry["remedy"]
        ('messages: has no answer', 'add one')
    """
    reason, separator, remedy = str(error).rpartition("; ")
    if not separator:
        reason = str(error)
        remedy = next(text for kind, text in _REMEDIES if isinstance(error, kind))
    return {
        "source": source,
        "row": row,
        "error": type(error).__name__,
        "reason": reason,
        "remedy": remedy,
    }


def write_rejected(folder: Path, shards: Iterable[Path]) -> None:
    """Writes the rejected rows of shards, in order; removes the file if there are none.

    Args:
        folder: The folder for the file.
        shards: The shards, each of which holds its own rejected rows.
    """
    file = folder / REJECTED
    shards = iter(shards)
    first = next((found for shard in shards if (found := _lines(shard))), b"")
    if not first:
        with disk_errors(file):
            file.unlink(missing_ok=True)
        return
    with partial_file(file) as target:
        target.write(first)
        for shard in shards:
            target.write(_lines(shard))


def add_rejected(folder: Path, shard: Path) -> None:
    """Appends the rejected rows of a shard that was just completed."""
    file = folder / REJECTED
    lines = _lines(shard)
    if lines:
        with disk_errors(file), file.open("ab") as data:
            data.write(lines)


def _lines(shard: Path) -> bytes:
    return b"".join(map(_line, Shard.of(shard).index.rejected))


def _line(entry: Mapping[str, Any]) -> bytes:
    ordered = {key: entry[key] for key in _KEYS}
    return json.dumps(ordered, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
