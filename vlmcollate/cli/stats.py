"""`vlmcollate stats`: count a dataset's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import (
    Data,
    MaxLength,
    MediaRoot,
    Processor,
    Rows,
    TrustRemoteCode,
)
from vlmcollate.cli.output import Json, console_for, print_json, print_line, print_table
from vlmcollate.cli.settings import CollatorSettings, with_settings
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.cli.source_surveys import SourceSurvey
    from vlmcollate.collator import BaseCollator

_Html = Annotated[Path | None, typer.Option(help="Also write charts to an HTML page.")]


@with_settings
def command(
    processor: Processor,
    data: Data,
    rows: Rows = ":",
    html: _Html = None,
    as_json: Json = False,  # noqa: FBT002  # typer makes a flag of it
    max_length: MaxLength = None,
    media_root: MediaRoot = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Count a dataset's tokens: lengths, trained share, media, padding and packing."""
    console = console_for(as_json=as_json)
    collator = load_collator(
        console,
        processor,
        settings,
        media_root=media_root,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
    )
    run(console, collator, data, rows=rows, page=html, as_json=as_json)


def run(
    console: Console,
    collator: BaseCollator,
    data: str,
    *,
    rows: str,
    page: Path | None,
    as_json: bool = False,
) -> None:
    """Counts the tokens of rows, prints tables and writes a page of charts.

    Args:
        console: Where to print.
        collator: Encodes the rows.
        data: A file or a folder, as for `data_parts`.
        rows: A row or a range, as for `data_parts`.
        page: The HTML file to write, or `None`.
        as_json: Whether to print the numbers as JSON.

    Raises:
        ConfigError: The data cannot be read, no row is good, or the page cannot be written.
    """
    surveys = _surveys(console, collator, data, rows)
    if as_json:
        from vlmcollate.cli.survey_document import surveys_document

        print_json(surveys_document(surveys))
    else:
        _print_tables(console, surveys)
    if page is not None:
        _write_page(page, surveys, Path(data).name)
        print_line(console, f"charts: {page}")


def _print_tables(console: Console, surveys: Sequence[SourceSurvey]) -> None:
    from vlmcollate.cli.survey_tables import sources_table, survey_tables
    from vlmcollate.explain.mask_text import visible

    for found in surveys:
        survey, place = found.survey, f"{visible(found.source)}: " if found.source else ""
        kinds = ", ".join(
            f"{count:,} {kind} item{'' if count == 1 else 's'}"
            for kind, count in survey.items.items()
        )
        rows = f"{len(survey.lengths):,} rows with {kinds or 'no media'}"
        print_line(console, f"{place}{rows}", "bold")
        for table in survey_tables(survey):
            print_table(console, table)
    if surveys[0].source:
        print_table(console, sources_table(surveys))


def _surveys(console: Console, collator: BaseCollator, data: str, rows: str) -> list[SourceSurvey]:
    """Counts the tokens of rows under a progress bar, of each source of a mixture."""
    from vlmcollate.cli.data_parts import data_parts
    from vlmcollate.cli.source_surveys import SourceSurvey
    from vlmcollate.cli.survey import survey_rows

    found = []
    for part in data_parts(collator, data, rows):
        listed = track(
            part,
            f"Encoding {part.source}".strip(),
            total=len(part),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        try:
            survey = survey_rows(part.collator, listed, part.shown)
        except ConfigError as error:
            if not part.source:
                raise
            raise ConfigError(f"source {part.source!r}: {error}") from error
        found.append(SourceSurvey(source=part.source, weight=part.weight, survey=survey))
    return found


def _write_page(page: Path, surveys: Sequence[SourceSurvey], name: str) -> None:
    from vlmcollate.cli.survey_page import survey_page

    try:
        page.write_text(survey_page(surveys, name=name), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error}") from error
