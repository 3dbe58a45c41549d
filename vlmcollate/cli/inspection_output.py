"""Inspected rows and packs, printed in a terminal or written to a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from vlmcollate.cli import terminal
from vlmcollate.cli.inspection import InspectedPack, InspectedRow
from vlmcollate.cli.output import print_line
from vlmcollate.errors import ConfigError
from vlmcollate.explain.mask_text import visible
from vlmcollate.explain.page import inspect_page, page_entry


def print_rows(
    console: Console,
    rows: Iterable[InspectedRow],
    packs: Sequence[InspectedPack],
    *,
    notes: Callable[[], Sequence[str]] = tuple,
    diff: str = "",
) -> None:
    """Prints rows, or their packs and the rows that failed.

    Args:
        console: Where to print.
        rows: The rows.
        packs: Their packs, or none.
        notes: A function that returns the notes on all rows, once they are read.
        diff: The name of the label strategy that they are compared with, or "".
    """
    brackets = console.color_system is None
    for number, pack in enumerate(packs, 1):
        console.print(Rule(Text(f"pack {number}: {pack.title}")))
        for place, row in enumerate(pack.rows, 1):
            _print_row(console, row, f"document {place}, {row.title}", brackets=brackets)
    for row in rows:
        if not packs or row.explanation is None:
            _print_row(console, row, row.title, brackets=brackets)
    for note in notes():
        print_line(console, f"! {visible(note)}", "yellow")
    console.print(terminal.key(brackets=brackets, other=diff))


def _print_row(console: Console, row: InspectedRow, title: str, *, brackets: bool) -> None:
    if row.explanation is None:
        error = Text(f"error: {visible(row.error)}", "bold red")
        console.print(Panel(error, title=Text(title), title_align="left", border_style="red"))
        return
    console.print(terminal.panel(row.explanation, title, brackets=brackets))
    if row.note:
        console.print(Text(visible(row.note), "yellow"))


def write_page(
    file: Path,
    rows: Iterable[InspectedRow],
    packs: Sequence[InspectedPack],
    *,
    name: str,
    notes: Callable[[], Sequence[str]] = tuple,
    diff: str = "",
) -> int:
    """Writes rows, or their packs and the rows that failed, as one HTML page.

    Args:
        file: The file to write.
        rows: The rows.
        packs: Their packs, or none.
        name: The name of the data.
        notes: As in `print_rows`.
        diff: The name of the label strategy that they are compared with, or "".

    Returns:
        The size of the page in bytes.

    Raises:
        ConfigError: The file cannot be written.
    """
    entries: list[dict[str, Any]] = []
    for number, pack in enumerate(packs, 1):
        title = f"pack {number}: {pack.title}"
        entries.append({"title": title, "documents": pack.lengths, "room": pack.max_length})
        entries += [_entry(row) for row in pack.rows]
    entries += [_entry(row) for row in rows if not packs or row.explanation is None]
    page = inspect_page(entries, name=name, notes=notes(), diff=diff)
    text = page.encode("utf-8", "backslashreplace")
    try:
        file.write_bytes(text)
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error}") from error
    return len(text)


def _entry(row: InspectedRow) -> dict[str, Any]:
    if row.explanation is None:
        return {"title": row.title, "error": row.error}
    return {"title": row.title, "note": row.note, **page_entry(row.explanation)}
