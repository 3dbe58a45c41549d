"""The `vlmcollate` command.

Heavy imports are inside the commands, so that asking for help does not wait for them.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from vlmcollate.cli.families import Family, Support, family_table
from vlmcollate.errors import CollateError
from vlmcollate.family import Family as DeclaredFamily

_WIDE = 120
_INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""


class _Commands(TyperGroup):
    """Commands whose errors are one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; exits with 1 where vlmcollate refuses something, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except CollateError as error:
            message = " ".join(f"error: {error}".split())
            Console(stderr=True).print(Text(message, "bold red"), soft_wrap=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already
            Console(stderr=True).print("interrupted")
            raise typer.Exit(_INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Exact training batches for vision-language models.",
    no_args_is_help=True,
    add_completion=False,
)


def main() -> None:
    """Runs the command line; after Ctrl-C it leaves without taking torch down, which takes long."""
    try:
        app()
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(_INTERRUPTED)
        raise


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer passes it so
    if wanted:
        try:
            number = version("vlmcollate")
        except PackageNotFoundError:
            number = "(not installed)"
        Console().print(f"vlmcollate {number}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Exact training batches for vision-language models."""


@app.command()
def demo(
    steps: Annotated[int, typer.Option(min=0, help="How many steps to train the tiny model.")] = 60,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Decides the pictures and the model's weights."),
    ] = 0,
) -> None:
    """Collate a few conversations, show what is trained, and train a tiny model on them."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.cli.demo import run
    run(console, steps=steps, seed=seed)


@app.command()
def families(
    keys: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--keys", help="Show the media keys of each collator instead.")
    ] = False,
) -> None:
    """List the processors of transformers, and how well each is served."""
    console = Console()
    if keys:
        _print_keys(console)
        return
    found = family_table()
    for support in get_args(Support):
        rows = [row for row in found.families if row.support == support]
        console.print(f"[bold]{support}[/] ({len(rows)})", highlight=False)
        console.print(_table_of(rows, wide=console.width >= _WIDE))
    console.print(
        f"As tested with transformers {found.transformers}. Any other processor with a chat "
        "template gets DefaultCollator, which refuses what it cannot do.",
        highlight=False,
    )


@app.command()
def inspect(
    processor: Annotated[str, typer.Argument(help="A processor's folder or its name on the hub.")],
    data: Annotated[Path, typer.Argument(help="JSON lines, Parquet, or a saved dataset's folder.")],
    rows: Annotated[str, typer.Option(help="A row or a range of rows.")] = "0:10",
    html: Annotated[Path | None, typer.Option(help="Write one page to look at instead.")] = None,
    pack: Annotated[
        int | None, typer.Option(min=1, help="Show the packs of at most so many tokens.")
    ] = None,
    diff: Annotated[
        str, typer.Option(help="Compare with another label strategy, as TextSearchLabels.")
    ] = "",
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The most tokens of a sample.")
    ] = None,
    media_root: Annotated[
        Path | None, typer.Option(help="Where relative media paths start.")
    ] = None,
    trust_remote_code: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--trust-remote-code", help="Run the processor's own code.")
    ] = False,
) -> None:
    """Show the label mask of a dataset's rows, in the terminal or on a page."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.cli.inspect import collator_of, run

        collator = collator_of(
            processor,
            media_root=media_root,
            max_length=max_length,
            trust_remote_code=trust_remote_code,
            packs=pack is not None,
        )
    if not run(console, collator, data, rows=rows, pack=pack, diff=diff, page=html):
        raise typer.Exit(1)


@app.command()
def stats(
    processor: Annotated[str, typer.Argument(help="A processor's folder or its name on the hub.")],
    data: Annotated[Path, typer.Argument(help="JSON lines, Parquet, or a saved dataset's folder.")],
    rows: Annotated[str, typer.Option(help="A row or a range of rows.")] = ":",
    html: Annotated[Path | None, typer.Option(help="Write the plots to a page.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The most tokens of a sample.")
    ] = None,
    media_root: Annotated[
        Path | None, typer.Option(help="Where relative media paths start.")
    ] = None,
    trust_remote_code: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--trust-remote-code", help="Run the processor's own code.")
    ] = False,
) -> None:
    """Count a dataset's tokens: lengths, trained share, media, padding and packing."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.cli.inspect import collator_of
        from vlmcollate.cli.stats import run

        collator = collator_of(
            processor,
            media_root=media_root,
            max_length=max_length,
            trust_remote_code=trust_remote_code,
        )
    run(console, collator, data, rows=rows, file=html)


@app.command()
def prepare(
    processor: Annotated[str, typer.Argument(help="A processor's folder or its name on the hub.")],
    source: Annotated[
        list[Path], typer.Argument(help="JSON lines or Parquet files, folders, or a saved dataset.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the shards.")],
    num_proc: Annotated[int, typer.Option(min=1, help="How many processes encode.")] = 1,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The most tokens of a sample or a pack.")
    ] = None,
    on_overlong: Annotated[
        str, typer.Option(help="A longer sample: raise, drop, truncate or drop_turns.")
    ] = "raise",
    on_error: Annotated[str, typer.Option(help="A bad sample: raise, or skip and count it.")] = (
        "raise"
    ),
    packing: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--packing", help="Join samples into packs of at most --max-length.")
    ] = False,
    resume: Annotated[  # noqa: FBT002  # likewise
        bool, typer.Option(help="Go on where an earlier run stopped.")
    ] = True,
    rows_per_shard: Annotated[int, typer.Option(min=1, help="The most rows in a shard.")] = 1000,
    media_root: Annotated[
        Path | None, typer.Option(help="Where relative media paths start.")
    ] = None,
    trust_remote_code: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--trust-remote-code", help="Run the processor's own code.")
    ] = False,
) -> None:
    """Encode a dataset ahead of time, into a folder of Parquet shards."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        import attrs

        from vlmcollate.cli.inspect import collator_of
        from vlmcollate.cli.prepare import run

        collator = collator_of(
            processor,
            media_root=media_root,
            max_length=max_length,
            trust_remote_code=trust_remote_code,
            packs=packing,
        )
        wanted: Any = on_overlong  # the collator refuses what is none of its policies
        collator = attrs.evolve(collator, on_overlong=wanted)
    run(
        console,
        source,
        output,
        collator=collator,
        num_proc=num_proc,
        max_length=max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    )


@app.command()
def check(
    processor: Annotated[str, typer.Argument(help="A processor's folder or its name on the hub.")],
    examples: Annotated[int, typer.Option(min=1, help="How many examples each law draws.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Decides which examples.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to go on before laws are left out.")
    ] = None,
    law: Annotated[list[str] | None, typer.Option(help="Try this law; may be repeated.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file, too.")] = None,
    trust_remote_code: Annotated[  # noqa: FBT002  # typer makes an option of it
        bool, typer.Option("--trust-remote-code", help="Run the processor's own code.")
    ] = False,
) -> None:
    """Prove the label masks of a processor's collator, on drawn conversations."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.cli.check import run
        from vlmcollate.cli.inspect import collator_of

        collator = collator_of(processor, trust_remote_code=trust_remote_code, packs=True)
    if not run(
        console, collator, examples=examples, seed=seed, seconds=seconds, names=law, junit=junit
    ):
        raise typer.Exit(1)


def _table_of(rows: list[Family], *, wide: bool) -> Table:
    """A table without the columns that would be empty, or that a narrow terminal cannot hold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells: dict[str, Callable[[Family], str]] = {"processor": lambda row: row.processor}
    if wide:
        cells["collator"] = lambda row: row.collator
    cells |= {"media": lambda row: ", ".join(row.media), "note": lambda row: row.note}
    shown = {name: cell for name, cell in cells.items() if any(map(cell, rows))}
    for name in shown:
        table.add_column(name, overflow="fold", no_wrap=name != "note")
    for row in rows:
        table.add_row(*(Text(cell(row)) for cell in shown.values()))
    return table


def _print_keys(console: Console) -> None:
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.models import COLLATORS
    table = Table(show_lines=True)
    for name in ("processor", "collator", "media keys", "token types"):
        is_name = name in ("processor", "collator")
        table.add_column(name, overflow="fold", no_wrap=is_name)
    for processor, collator in sorted(COLLATORS.items()):
        table.add_row(processor, collator.__name__, _joins_of(collator), _types_of(collator))
    console.print(table)


def _joins_of(collator: Any) -> str:
    family = collator.family
    if not isinstance(family, DeclaredFamily):
        return "probed on the processor"
    return "\n".join(f"{key}: {join}" for key, join in family.joins.items()) or "none"


def _types_of(collator: Any) -> str:
    types = getattr(collator.family, "token_types", None)
    return types.key if types else "-"
