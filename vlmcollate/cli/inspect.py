"""`vlmcollate inspect`: show the label mask of a dataset's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import (
    Data,
    MaxLength,
    MediaRoot,
    Processor,
    Rows,
    TrustRemoteCode,
)
from vlmcollate.cli.settings import CollatorSettings, with_settings

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
    max_length: MaxLength = None,
    media_root: MediaRoot = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Show the label mask of a dataset's rows, in the terminal or on a page."""
    console = Console()
    collator = load_collator(
        console,
        processor,
        settings,
        media_root=media_root,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
        packs=pack is not None,
    )
    if not run(console, collator, data, rows=rows, pack=pack, diff=diff, page=html):
        raise typer.Exit(1)


def run(
    console: Console,
    collator: BaseCollator,
    data: Path,
    *,
    rows: str,
    pack: int | None,
    diff: str,
    page: Path | None,
) -> bool:
    """Shows rows, one at a time: the media of many rows may not fit in memory.

    Args:
        console: Where to print.
        collator: Encodes the rows.
        data: A file or a folder, as for `Rows.of`.
        rows: A row or a range, as for `Rows.of`.
        pack: The maximum tokens of a pack, or `None`.
        diff: The name of a label strategy to compare with, or "".
        page: The HTML file to write instead of printing the rows, or `None`.

    Returns:
        Whether every row is good.
    """
    from vlmcollate.cli.inspection import inspect_rows, pack_rows
    from vlmcollate.cli.inspection_output import print_rows, write_page

    counts: Counter[bool] = Counter()
    inspected: Iterable[InspectedRow] = _counted(
        inspect_rows(collator, data, rows=rows, diff=diff), counts
    )
    packs: list[InspectedPack] = []
    if pack is not None:
        inspected = list(inspected)
        packs = pack_rows(collator, inspected, pack)
    if page is None:
        print_rows(console, inspected, packs, diff=diff)
    else:
        with console.status("Encoding ..."):
            size = write_page(page, inspected, packs, name=data.name, diff=diff)
        written = f"{page}: {counts.total()} rows, {size / 1e6:.2f} MB; open it in a browser"
        console.print(Text(written), soft_wrap=True)
    if counts[True]:
        failed = f"{counts[True]} of {counts.total()} rows failed"
        console.print(Text(failed, "bold red"))
    return not counts[True]


def _counted(rows: Iterable[InspectedRow], counts: Counter[bool]) -> Iterator[InspectedRow]:
    """Yields rows, and counts them by whether they failed."""
    for row in rows:
        counts[row.explanation is None] += 1
        yield row
