"""`vlmcollate stats`: count a dataset's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
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
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.cli.survey import Survey
    from vlmcollate.collator import BaseCollator

_Html = Annotated[Path | None, typer.Option(help="Also write charts to an HTML page.")]


@with_settings
def command(
    processor: Processor,
    data: Data,
    rows: Rows = ":",
    html: _Html = None,
    max_length: MaxLength = None,
    media_root: MediaRoot = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Count a dataset's tokens: lengths, trained share, media, padding and packing."""
    console = Console()
    collator = load_collator(
        console,
        processor,
        settings,
        media_root=media_root,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
    )
    run(console, collator, data, rows=rows, page=html)


def run(
    console: Console, collator: BaseCollator, data: Path, *, rows: str, page: Path | None
) -> None:
    """Counts the tokens of rows, prints tables and writes a page of charts.

    Args:
        console: Where to print.
        collator: Encodes the rows.
        data: A file or a folder, as for `Rows.of`.
        rows: A row or a range, as for `Rows.of`.
        page: The HTML file to write, or `None`.

    Raises:
        ConfigError: The data cannot be read, no row is good, or the page cannot be written.
    """
    from vlmcollate.cli.survey_tables import survey_tables

    survey = _survey(console, collator, data, rows)
    kinds = ", ".join(
        f"{count:,} {kind} item{'' if count == 1 else 's'}" for kind, count in survey.items.items()
    )
    console.print(
        f"[bold]{len(survey.lengths):,} rows[/] with {kinds or 'no media'}", highlight=False
    )
    for table in survey_tables(survey):
        console.print(table)
    if page is not None:
        _write_page(page, survey, data.name)
        console.print(Text(f"charts: {page}"), soft_wrap=True)


def _survey(console: Console, collator: BaseCollator, data: Path, rows: str) -> Survey:
    """Counts the tokens of rows under a progress bar."""
    from vlmcollate.cli.survey import survey_rows
    from vlmcollate.data.rows import Rows

    found = Rows.of(data, rows)
    listed = track(found, "Encoding", total=len(found), console=console, transient=True)
    return survey_rows(collator, listed)


def _write_page(page: Path, survey: Survey, name: str) -> None:
    from vlmcollate.cli.survey_page import survey_page

    try:
        page.write_text(survey_page(survey, name=name), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error}") from error
