"""Printing: tables on a terminal, records in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line instead, for programs.")
]
_ESCAPES = {code: chr(0x2400 + code) for code in range(0x20)} | {
    0x7F: "\u2421",
    ord("\n"): "\u21b5",
    ord("\t"): "\u2192",
}
"""Characters that would end a cell or a line, or control a terminal."""


def console_for(*, as_json: bool) -> Console:
    """Returns the console for all but JSON, which has the standard output for itself."""
    return Console(stderr=as_json)


def status(console: Console, text: str) -> AbstractContextManager[Any]:
    """Shows a status on a terminal for as long as the context lasts."""
    return console.status(text) if console.is_terminal else nullcontext()


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(_encodable(text) + "\n")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def print_table(console: Console, table: Table) -> None:
    """Prints a table on a terminal, or one record a line elsewhere."""
    if console.is_terminal:
        console.print(table)
        return
    if table.show_header:
        print_record(console, (column.header for column in table.columns))
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        print_record(console, cells)


def print_record(console: Console, cells: Iterable[Any]) -> None:
    """Prints cells in one line, with a tab between them, whatever the width of a terminal."""
    texts = (cell.plain if isinstance(cell, Text) else str(cell) for cell in cells)
    line = "\t".join(text.translate(_ESCAPES) for text in texts)
    console.file.write(_encodable(line) + "\n")  # Rich would expand the tabs


def print_line(console: Console, text: str, style: str = "") -> None:
    """Prints a line that is never wrapped."""
    console.print(Text(text, style), soft_wrap=True)
