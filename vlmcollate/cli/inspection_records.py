"""Inspected rows for programs: one record or one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console

from vlmcollate.cli import terminal
from vlmcollate.cli.inspection import InspectedPack, InspectedRow
from vlmcollate.cli.output import print_json, print_record
from vlmcollate.explain.mask_text import visible

_COLUMNS = ("row", "pack", "tokens", "trained", "format", "labels", "media", "notes", "text")


def print_row_records(
    console: Console,
    rows: Iterable[InspectedRow],
    packs: Sequence[InspectedPack],
    *,
    notes: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Prints a header, one line per row with a tab between its cells, and one per note.

    Args:
        console: Where to print.
        rows: The rows.
        packs: Their packs, or none.
        notes: A function that returns the notes on all rows, once they are read.
    """
    print_record(console, _COLUMNS)
    for row, place in _placed(rows, packs):
        print_record(console, _cells(row, place.get("pack", "")))
    for note in notes():
        cells = {"row": "note", "notes": visible(note)}
        print_record(console, [cells.get(column, "") for column in _COLUMNS])


def print_json_rows(rows: Iterable[InspectedRow], packs: Sequence[InspectedPack]) -> None:
    """Prints one JSON object per row: its number, its error or `None`, and its explanation.

    Args:
        rows: The rows.
        packs: Their packs, or none; a row of a pack has the numbers of the pack and the document.
    """
    for row, place in _placed(rows, packs):
        found = {} if row.explanation is None else row.explanation.to_dict()
        error = row.error or None
        source = {"source": row.source} if row.source else {}
        sample = {"sample": row.sample[0]} if row.sample else {}
        print_json(
            {
                **source,
                "row": row.number,
                **sample,
                "error": error,
                "note": row.note,
                **place,
                **found,
            }
        )


def _placed(
    rows: Iterable[InspectedRow], packs: Sequence[InspectedPack]
) -> Iterator[tuple[InspectedRow, dict[str, int]]]:
    """Yields each row with its place in a pack, if it has one."""
    for number, pack in enumerate(packs, 1):
        for document, row in enumerate(pack.rows, 1):
            yield row, {"pack": number, "document": document}
    for row in rows:
        if not packs or row.explanation is None:
            yield row, {}


def _cells(row: InspectedRow, pack: object) -> tuple[Any, ...]:
    found = row.explanation
    number = f"{visible(row.source)}:{row.number}" if row.source else row.number
    if found is None:
        return number, pack, 0, 0, "", "", "", f"error: {visible(row.error)}", ""
    counts = found.summary["by_class"]
    return (
        number,
        pack,
        found.summary["tokens"],
        counts["trained"],
        found.format,
        found.sample.label_strategy,
        ", ".join(f"{item.kind} {item.size}: {item.tokens}" for item in found.media),
        "; ".join(visible(note) for note in (*found.warnings, row.note) if note),
        terminal.mask(found, brackets=True).plain.replace("\u21b5\n", "\u21b5"),
    )
