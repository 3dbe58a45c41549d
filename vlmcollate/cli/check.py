"""`vlmcollate check`: prove a collator's label masks on generated conversations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import Processor, TrustRemoteCode
from vlmcollate.cli.output import Json, console_for, print_json, print_record, print_table
from vlmcollate.cli.settings import CollatorSettings, with_settings
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.testing.checking import Report

_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "not applicable": "dim",
    "not reached": "yellow",
}

_Examples = Annotated[int, typer.Option(min=1, help="Number of examples per law.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the examples.")]
_Seconds = Annotated[
    float | None, typer.Option(min=0, help="Time after which the remaining laws are skipped.")
]
_Law = Annotated[list[str] | None, typer.Option(help="Check only this law; may be repeated.")]
_Junit = Annotated[Path | None, typer.Option(help="Also write a JUnit file.")]


@with_settings
def command(
    processor: Processor,
    examples: _Examples = 10,
    seed: _Seed = 0,
    seconds: _Seconds = None,
    law: _Law = None,
    junit: _Junit = None,
    as_json: Json = False,  # noqa: FBT002  # typer makes a flag of it
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # typer makes a flag of it
    *,
    settings: CollatorSettings,
) -> None:
    """Prove the label masks of a processor's collator, on generated conversations."""
    console = console_for(as_json=as_json)
    collator = load_collator(
        console, processor, settings, trust_remote_code=trust_remote_code, packs=True
    )
    if not run(
        console,
        collator,
        examples=examples,
        seed=seed,
        seconds=seconds,
        names=law,
        junit=junit,
        as_json=as_json,
    ):
        raise typer.Exit(1)


def run(
    console: Console,
    collator: BaseCollator,
    *,
    examples: int,
    seed: int,
    seconds: float | None,
    names: Sequence[str] | None,
    junit: Path | None,
    as_json: bool = False,
) -> bool:
    """Checks the laws under a progress bar, and prints a table and the failures.

    Args:
        console: Where to print.
        collator: The collator.
        examples: The number of examples per law.
        seed: The seed of the examples.
        seconds: The time after which the remaining laws are skipped.
        names: The names of the laws, or `None` for all.
        junit: The JUnit file to write, or `None`.
        as_json: Whether to print the report as JSON.

    Returns:
        Whether every law was checked and holds.

    Raises:
        ConfigError: There is no law of that name, hypothesis is not installed, or the JUnit file
            cannot be written.
    """
    if junit is not None:
        _check_writable(junit)
    laws = _select_laws(names)
    report = _check_laws(console, collator, laws, examples=examples, seed=seed, seconds=seconds)
    if as_json:
        print_json(attrs.asdict(report))
    else:
        _print_report(console, report)
    if junit is not None:
        junit.write_text(report.junit(), encoding="utf-8")
    return not report.failed and not report.untried


def _check_writable(junit: Path) -> None:
    """Refuses a file that cannot be written, before any law is checked."""
    try:
        with junit.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write {junit}: {error.strerror}") from error


def _select_laws(names: Sequence[str] | None) -> list[Any]:
    try:
        from vlmcollate.testing.laws import LAWS
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; run pip install 'vlmcollate[testing]'"
        ) from error
    unknown = sorted(set(names or ()) - {law.__name__ for law in LAWS})
    if unknown:
        known = ", ".join(law.__name__ for law in LAWS)
        raise ConfigError(f"unknown law {', '.join(unknown)}; the laws are {known}")
    return [law for law in LAWS if not names or law.__name__ in names]


def _check_laws(
    console: Console, collator: BaseCollator, laws: Sequence[Any], **options: Any
) -> Report:
    from vlmcollate.testing.checking import check_collator

    check = partial(check_collator, collator, laws=laws, raise_on_failure=False, **options)
    if not console.is_terminal:
        return check()  # Rich 13 ends even a disabled bar with an empty line
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(laws))
        return check(on_law=lambda name: bar.update(task, advance=1, description=name))


def _print_report(console: Console, report: Report) -> None:
    print_table(console, _results_table(report, is_brief=console.is_terminal))
    for result in report.failed if console.is_terminal else ():
        console.print(Text(result.law, "bold red"))
        console.print(Text(result.message), soft_wrap=True)
        console.print()
    for note in report.notes if console.is_terminal else ():
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    for note in () if console.is_terminal else report.notes:
        print_record(console, ("note", "", "", note))
    if report.untried:
        number = len(report.untried)
        laws = f"{number} law{' was' if number == 1 else 's were'}"
        message = f"{laws} not tried: out of time; raise --seconds, or lower --examples"
        console.print(Text(message, "bold red"))


def _results_table(report: Report, *, is_brief: bool) -> Table:
    table = Table("law", "status", "seconds", "note", box=box.SIMPLE_HEAD, title=report.collator)
    for result in report.results:
        note = "" if is_brief and result.status == "failed" else result.message
        table.add_row(
            Text(result.law),
            Text(result.status, _STYLES[result.status]),
            f"{result.seconds:.2f}",
            Text(note.partition("\n")[0] if is_brief else note),
        )
    return table
