"""`vlmcollate families`: which processors of transformers are supported, as test runs show.

The table is data. `tests/conformance/test_families.py` collates with every processor and compares
the results with it, and `scripts/write_families_table.py` writes it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, get_args

import attrs
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.loading import importing
from vlmcollate.cli.output import (
    JsonLines,
    console_for,
    print_json,
    print_record,
    print_table,
)
from vlmcollate.errors import ConfigError

Support = Literal["exact", "exact with options", "refused", "not proven"]

_WIDE = 120
"""The columns of a terminal that has room for the collators."""

_Name = Annotated[str, typer.Argument(help="Part of the name of a processor or collator.")]
_Keys = Annotated[
    bool, typer.Option("--keys", help="Show the media keys of each collator instead.")
]


@attrs.frozen(kw_only=True)
class ProcessorSupport:
    """How well vlmcollate supports a processor class.

    Attributes:
        processor: The name of the class.
        collator: The name of the collator that `collator_for` returns, or "" if it returns none.
        support: Whether exactly the answers train, with media in the prompt.
        media: The kinds of media with which a test run showed that.
        pixel_bytes: The kinds whose pixels stay bytes until the batch, at a quarter of the memory.
        shown_on: What stood in for a checkpoint's own files.
        note: The option to set, or the reason for a refusal.
    """

    processor: str
    collator: str
    support: Support
    media: tuple[str, ...]
    pixel_bytes: tuple[str, ...]
    shown_on: str
    note: str


@attrs.frozen
class SupportTable:
    """The result of a test run.

    Attributes:
        transformers: The release of transformers in the test run.
        processors: The processor classes, by name.
    """

    transformers: str
    processors: tuple[ProcessorSupport, ...]


@cache
def support_table() -> SupportTable:
    """Reads the table of the test run with this release of vlmcollate."""
    table = json.loads(files(__package__).joinpath("families.json").read_text(encoding="utf-8"))
    lists = "media", "pixel_bytes"
    rows = (
        ProcessorSupport(**{**row, **{name: tuple(row[name]) for name in lists}})
        for row in table["processors"]
    )
    return SupportTable(table["transformers"], tuple(rows))


def command(
    name: _Name = "",
    keys: _Keys = False,  # noqa: FBT002  # typer makes a flag of it
    as_json: JsonLines = False,  # noqa: FBT002  # likewise
) -> None:
    """List the processors of transformers, and how well each is supported."""
    console = console_for(as_json=as_json)
    if keys:
        _print_keys(console, name, as_json=as_json)
        return
    table = support_table()
    names = {row.processor: row.collator for row in table.processors}
    found = _matching(names, name)
    rows = [row for row in table.processors if row.processor in found]
    if as_json:
        for row in rows:
            print_json({**attrs.asdict(row), "transformers": table.transformers})
    elif console.is_terminal:
        _print_support(console, attrs.evolve(table, processors=tuple(rows)))
    else:
        _print_records(console, rows)


def _matching(names: Mapping[str, str], part: str) -> set[str]:
    """Finds the processors whose name, or whose collator's name, contains a part.

    Raises:
        ConfigError: There is none.
    """
    simple = {name: _simple(f"{name} {collator}") for name, collator in names.items()}
    found = {name for name, text in simple.items() if _simple(part) in text}
    if not found:
        near = {_simple(name.removesuffix("Processor")): name for name in names}
        close = difflib.get_close_matches(_simple(part).removesuffix("processor"), near, n=1)
        hint = f"; did you mean {near[close[0]]!r}?" if close else ""
        raise ConfigError(f"no processor or collator has {part!r} in its name{hint}")
    return found


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", name.lower())


def _print_records(console: Console, rows: list[ProcessorSupport]) -> None:
    print_record(console, ("processor", "collator", "support", "media", "bytes", "note"))
    for row in rows:
        media, kept = ", ".join(row.media), ", ".join(row.pixel_bytes)
        print_record(console, (row.processor, row.collator, row.support, media, kept, row.note))


def _print_support(console: Console, table: SupportTable) -> None:
    for support in get_args(Support):
        rows = [row for row in table.processors if row.support == support]
        if rows:
            console.print(f"[bold]{support}[/] ({len(rows)})", highlight=False)
            console.print(_support_rows(rows, wide=console.width >= _WIDE))
    console.print(
        f"As tested with transformers {table.transformers}. Any other processor with a chat "
        "template gets DefaultCollator, which refuses what it cannot collate exactly.",
        highlight=False,
    )


def _support_rows(rows: list[ProcessorSupport], *, wide: bool) -> Table:
    """Builds a table without empty columns and, in a narrow terminal, without the collators."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells: dict[str, Callable[[ProcessorSupport], str]] = {"processor": lambda row: row.processor}
    if wide:
        cells["collator"] = lambda row: row.collator
    cells["media"] = lambda row: ", ".join(row.media)
    if wide:
        cells["bytes"] = lambda row: ", ".join(row.pixel_bytes)
    cells["note"] = lambda row: row.note
    shown = {name: cell for name, cell in cells.items() if any(map(cell, rows))}
    for name in shown:
        table.add_column(name, overflow="fold", no_wrap=name != "note")
    for row in rows:
        table.add_row(*(Text(cell(row)) for cell in shown.values()))
    return table


def _print_keys(console: Console, name: str, *, as_json: bool) -> None:
    with importing(console):
        from vlmcollate.models import COLLATORS
    found = _matching({name: kind.__name__ for name, kind in COLLATORS.items()}, name)
    table = Table(show_lines=True)
    for title in ("processor", "collator", "media keys", "token types"):
        is_name = title in ("processor", "collator")
        table.add_column(title, overflow="fold", no_wrap=is_name)
    for processor in sorted(found):
        collator = COLLATORS[processor]
        cells = (processor, collator.__name__, _joins(collator), _token_types(collator))
        if as_json:
            keys = ("processor", "collator", "media_keys", "token_types")
            print_json(dict(zip(keys, cells, strict=True)))
        else:
            table.add_row(*cells)
    if not as_json:
        print_table(console, table)


def _joins(collator: Any) -> str:
    joins = getattr(collator.family, "joins", None)
    if joins is None:
        return "found by probing the processor"
    return "\n".join(f"{key}: {join}" for key, join in joins.items()) or "none"


def _token_types(collator: Any) -> str:
    types = getattr(collator.family, "token_types", None)
    return types.key if types else "-"
