"""The command line application: its commands, its errors and its exit codes."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from vlmcollate.cli import check, demo, doctor, families, inspect, prepare, stats
from vlmcollate.cli.interrupts import INTERRUPTED
from vlmcollate.errors import CollateError


class _Commands(TyperGroup):
    """Commands that print an error in one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; exits with 1 after an error of vlmcollate, with 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except CollateError as error:
            message = " ".join(f"error: {error}".split())
            Console(stderr=True).print(Text(message, "bold red"), soft_wrap=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as error:
            signal.signal(signal.SIGINT, lambda *_: None)  # the command is ending already
            message = ": ".join(map(str, ("interrupted", *error.args)))
            Console(stderr=True).print(Text(message), soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Exact training batches for vision-language models.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("demo")(demo.command)
app.command("families")(families.command)
app.command("inspect")(inspect.command)
app.command("stats")(stats.command)
app.command("prepare")(prepare.command)
app.command("check")(check.command)
app.command("doctor")(doctor.command)


def main() -> None:
    """Runs the command line; after Ctrl-C, exits without torch's slow shutdown."""
    try:
        app()
    except SystemExit as error:
        if error.code == INTERRUPTED:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(INTERRUPTED)
        raise


def _print_version(requested: bool) -> None:  # noqa: FBT001  # typer calls it with a position
    if requested:
        try:
            number = version("vlmcollate")
        except PackageNotFoundError:
            number = "(not installed)"
        Console().print(f"vlmcollate {number}", highlight=False)
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
]


@app.callback()
def _options(_: _Version = False) -> None:  # noqa: FBT002  # typer makes a flag of it
    """Exact training batches for vision-language models."""
