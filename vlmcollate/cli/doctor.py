"""`vlmcollate doctor`: what a chat template does with the chats that people train on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import Processor, TrustRemoteCode
from vlmcollate.cli.output import Json, console_for, print_json, print_record, print_table
from vlmcollate.cli.settings import CollatorSettings, with_settings

if TYPE_CHECKING:
    from vlmcollate.cli.diagnosis import Diagnosis


@with_settings
def command(
    processor: Processor,
    as_json: Json = False,  # noqa: FBT002  # typer makes a flag of it
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Say what a processor's chat template does: what ends a turn, what trains, what is refused."""
    console = console_for(as_json=as_json)
    collator = load_collator(console, processor, settings, trust_remote_code=trust_remote_code)
    from vlmcollate.cli.diagnosis import diagnose

    diagnosis = diagnose(collator)
    if as_json:
        print_json(attrs.asdict(diagnosis))
    else:
        _print(console, diagnosis)
    if not any(finding.is_exact for finding in diagnosis.findings):
        raise typer.Exit(1)


def _print(console: Console, diagnosis: Diagnosis) -> None:
    facts = {
        "processor": diagnosis.processor,
        "ends a turn": diagnosis.turn_end,
        "switches for thinking": ", ".join(diagnosis.switches) or "none",
    }
    for name, value in facts.items():
        if console.is_terminal:
            console.print(Text.assemble((f"{name}: ", "bold"), value), soft_wrap=True)
        else:
            print_record(console, (name, value))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("chat")
    table.add_column("labels")
    table.add_column("what trains, and what to know", overflow="fold")
    for finding in diagnosis.findings:
        exact = Text("exact", "green") if finding.is_exact else Text("refused", "bold red")
        trained = " | ".join(text.replace("\n", "\u21b5") for text in finding.trained)
        lines = ([trained] if trained else []) + [f"note: {note}" for note in finding.notes]
        table.add_row(finding.chat, exact, Text("\n".join(lines)))
    print_table(console, table)
