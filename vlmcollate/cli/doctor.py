"""`vlmcollate doctor`: what a chat template does with the chats that people train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import Processor, TrustRemoteCode
from vlmcollate.cli.output import (
    Json,
    console_for,
    print_json,
    print_line,
    print_record,
    print_table,
)
from vlmcollate.cli.settings import CollatorSettings, with_settings
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.cli.diagnosis import Diagnosis
    from vlmcollate.cli.diagnosis_values import Level

_Html = Annotated[Path | None, typer.Option(help="Also write an HTML page.")]
_STYLES: dict[Level, str] = {"fine": "green", "choice": "yellow", "loss": "bold red"}


@with_settings
def command(
    processor: Processor,
    html: _Html = None,
    as_json: Json = False,  # noqa: FBT002  # typer makes a flag of it
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Report what a chat template does, and which option changes it."""
    console = console_for(as_json=as_json)
    collator = load_collator(console, processor, settings, trust_remote_code=trust_remote_code)
    from vlmcollate.cli.diagnosis import diagnose

    diagnosis = diagnose(collator)
    if as_json:
        print_json(attrs.asdict(diagnosis))
    else:
        _print(console, diagnosis)
    if html is not None:
        _write_page(html, diagnosis, Path(processor).name)
        print_line(console, f"page: {html}")
    if not any(finding.is_exact for finding in diagnosis.findings):
        raise typer.Exit(1)


def _write_page(page: Path, diagnosis: Diagnosis, name: str) -> None:
    from vlmcollate.cli.doctor_page import doctor_page

    try:
        page.write_text(doctor_page(diagnosis, name=name), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error}") from error


def _print(console: Console, diagnosis: Diagnosis) -> None:
    named = ("processor", f"{diagnosis.processor}, with {diagnosis.collator}")
    if console.is_terminal:
        console.print(Text.assemble((f"{named[0]}: ", "bold"), named[1]), soft_wrap=True)
    else:
        print_record(console, named)
    print_table(console, _facts(diagnosis))
    print_table(console, _chats(diagnosis))


def _facts(diagnosis: Diagnosis) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("about", "what the template does", "what changes it"):
        table.add_column(name, overflow="fold")
    for fact in diagnosis.facts:
        table.add_row(Text(fact.topic, _STYLES[fact.level]), Text(fact.text), Text(fact.remedy))
    return table


def _chats(diagnosis: Diagnosis) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("chat")
    table.add_column("labels")
    table.add_column("what trains, or why it is refused", overflow="fold")
    for finding in diagnosis.findings:
        exact = Text("exact", "green") if finding.is_exact else Text("refused", "bold red")
        texts = finding.trained if finding.is_exact else finding.notes
        shown = " | ".join(text.replace("\n", "\u21b5") for text in texts)
        table.add_row(finding.title, exact, Text(shown))
    return table
