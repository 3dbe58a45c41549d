"""What `vlmcollate check` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.testing.checking import Report

_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "not applicable": "dim",
    "not reached": "yellow",
}


def run(
    console: Console,
    collator: BaseCollator,
    *,
    examples: int,
    seed: int,
    seconds: float | None,
    names: Sequence[str] | None,
    junit: Path | None,
) -> bool:
    """Tries the laws under a progress bar, and prints a table and the failures.

    Args:
        console: Where to write.
        collator: The collator.
        examples: How many examples each law draws.
        seed: Decides which.
        seconds: How long to go on.
        names: Which laws; `None` for all.
        junit: Where to write a JUnit file.

    Returns:
        Whether every law was tried and holds.

    Raises:
        ConfigError: A name is no law, hypothesis is not installed, or the JUnit file cannot be
            written.
    """
    if junit is not None:
        _check_writable(junit)
    try:
        from vlmcollate.testing.checking import check_collator
        from vlmcollate.testing.laws import LAWS
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; run pip install 'vlmcollate[testing]'"
        ) from error
    unknown = sorted(set(names or ()) - {law.__name__ for law in LAWS})
    if unknown:
        known = ", ".join(law.__name__ for law in LAWS)
        raise ConfigError(f"{', '.join(unknown)} is no law; the laws are {known}")
    laws = [law for law in LAWS if not names or law.__name__ in names]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(laws))
        report = check_collator(
            collator,
            laws=laws,
            examples=examples,
            seed=seed,
            seconds=seconds,
            raise_on_failure=False,
            on_law=lambda name: bar.update(task, advance=1, description=name),
        )
    _show(console, report)
    if junit is not None:
        junit.write_text(report.junit(), encoding="utf-8")
    return not report.failed and not report.untried


def _check_writable(junit: Path) -> None:
    """Refuses a file before the laws are tried, and not after."""
    try:
        with junit.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write {junit}: {error.strerror}") from error


def _show(console: Console, report: Report) -> None:
    table = Table("law", "", "seconds", "", box=box.SIMPLE_HEAD, title=report.collator)
    for result in report.results:
        note = "" if result.status == "failed" else result.message.partition("\n")[0]
        table.add_row(
            Text(result.law),
            Text(result.status, _STYLES[result.status]),
            f"{result.seconds:.2f}",
            Text(note),
        )
    console.print(table)
    for result in report.failed:
        console.print(Text(result.law, "bold red"))
        console.print(Text(result.message), soft_wrap=True)
        console.print()
    if report.untried:
        number = len(report.untried)
        told = f"{number} law{' was' if number == 1 else 's were'} not tried: out of time"
        console.print(Text(f"{told}; raise --seconds, or lower --examples", "bold red"))
