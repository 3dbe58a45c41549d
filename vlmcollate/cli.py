"""The `vlmcollate` command.

Heavy imports are inside the commands, so that asking for help does not wait for them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from vlmcollate.errors import CollateError


class _Commands(TyperGroup):
    """Commands whose errors are one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; exits with 1 where vlmcollate refuses something."""
        try:
            return super().invoke(ctx)
        except CollateError as error:
            message = " ".join(f"error: {error}".split())
            Console(stderr=True).print(Text(message, "bold red"), soft_wrap=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Exact training batches for vision-language models.",
    no_args_is_help=True,
    add_completion=False,
)


def main() -> None:
    """Runs the command line."""
    app()


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
        from vlmcollate.demo import run
    run(console, steps=steps, seed=seed)


@app.command()
def families() -> None:
    """List the model families that have a collator of their own."""
    console = Console()
    with console.status("Importing torch and transformers ..."):
        from vlmcollate.models import COLLATORS
        from vlmcollate.models.default import DefaultCollator
    table = Table(show_lines=True)
    for name in ("processor", "collator", "media keys", "token types"):
        is_name = name in ("processor", "collator")
        table.add_column(name, overflow="fold", no_wrap=is_name)
    for processor, collator in sorted(COLLATORS.items()):
        table.add_row(processor, collator.__name__, _joins_of(collator), _types_of(collator))
    console.print(table)
    console.print(
        f"Any other processor with a chat template is served by {DefaultCollator.__name__}.",
        highlight=False,
    )


def _joins_of(collator: Any) -> str:
    joins = collator.media_joins
    if not hasattr(joins, "items"):
        return "learned from the processor"
    return "\n".join(f"{key}: {join}" for key, join in joins.items()) or "none"


def _types_of(collator: Any) -> str:
    key = collator.token_type_key
    return key if isinstance(key, str) else "-"
