"""`vlmcollate inspect`: show the label mask of a dataset's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import (
    Data,
    MaxLength,
    MediaRoot,
    Processor,
    Rows,
    TrustRemoteCode,
)
from vlmcollate.cli.output import JsonLines, console_for, print_line, status
from vlmcollate.cli.settings import CollatorSettings, with_settings
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.cli.inspection import InspectedPack, InspectedRow
    from vlmcollate.collator import BaseCollator

_Html = Annotated[
    Path | None, typer.Option(help="Write an HTML page instead of printing the rows.")
]
_Pack = Annotated[int | None, typer.Option(min=1, help="Show packs of at most this many tokens.")]
_Diff = Annotated[
    str, typer.Option(help="Compare with another label strategy, such as TextSearchLabels.")
]


@with_settings
def command(
    processor: Processor,
    data: Data,
    rows: Rows = "0:10",
    html: _Html = None,
    pack: _Pack = None,
    diff: _Diff = "",
    as_json: JsonLines = False,  # noqa: FBT002  # typer makes a flag of it
    max_length: MaxLength = None,
    media_root: MediaRoot = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Show the label mask of a dataset's rows, in the terminal or on a page."""
    if as_json and html is not None:
        raise ConfigError("--json and --html exclude each other; remove one")
    console = console_for(as_json=as_json)
    collator = load_collator(
        console,
        processor,
        settings,
        media_root=media_root,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
        packs=pack is not None,
    )
    is_good = run(
        console, collator, data, rows=rows, pack=pack, diff=diff, page=html, as_json=as_json
    )
    if not is_good:
        raise typer.Exit(1)


def run(
    console: Console,
    collator: BaseCollator,
    data: str,
    *,
    rows: str,
    pack: int | None,
    diff: str,
    page: Path | None,
    as_json: bool = False,
) -> bool:
    """Shows rows, one at a time: the media of many rows may not fit in memory.

    Args:
        console: Where to print.
        collator: Encodes the rows.
        data: A file or a folder, as for `data_parts`.
        rows: A row or a range, as for `data_parts`.
        pack: The maximum tokens of a pack, or `None`.
        diff: The name of a label strategy to compare with, or "".
        page: The HTML file to write instead of printing the rows, or `None`.
        as_json: Whether to print the rows as JSON.

    Returns:
        Whether every row is good.
    """
    from vlmcollate.cli.inspection import inspect_rows, pack_rows
    from vlmcollate.cli.inspection_notes import RowNotes
    from vlmcollate.cli.inspection_output import print_rows, write_page
    from vlmcollate.cli.inspection_records import print_json_rows, print_row_records

    counts: Counter[bool] = Counter()
    inspected: Iterable[InspectedRow] = _counted(
        inspect_rows(collator, data, rows=rows, diff=diff), counts
    )
    notes = RowNotes()
    if not as_json:  # of which each row stands for itself
        inspected = notes.taken_from(inspected)

    def lines() -> list[str]:
        return notes.lines(counts.total())

    packs: list[InspectedPack] = []
    if pack is not None:
        inspected = list(inspected)
        packs = pack_rows(collator, inspected, pack)
    if as_json:
        print_json_rows(inspected, packs)
    elif page is not None:
        with status(console, "Encoding ..."):
            size = write_page(page, inspected, packs, name=Path(data).name, notes=lines, diff=diff)
        written = f"{page}: {counts.total()} rows, {size / 1e6:.2f} MB; open it in a browser"
        print_line(console, written)
    elif console.is_terminal:
        print_rows(console, inspected, packs, notes=lines, diff=diff)
    else:
        print_row_records(console, inspected, packs, notes=lines)
    if counts[True]:
        failed = f"{counts[True]} of {counts.total()} rows failed"
        print_line(Console(stderr=True), failed, "bold red")
    return not counts[True]


def _counted(rows: Iterable[InspectedRow], counts: Counter[bool]) -> Iterator[InspectedRow]:
    """Yields rows, and counts them by whether they failed, once for all of their samples."""
    for row in rows:
        if row.sample is None or row.sample[0] == 1:
            counts[row.explanation is None] += 1
        yield row
