"""`vlmcollate stats`: how long a dataset's rows are, what of them trains, and what is wasted.

Shapes: N good rows.
"""

from __future__ import annotations

import html
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from vlmcollate.collator import BaseCollator
from vlmcollate.data.rows import read_rows, row_range
from vlmcollate.errors import ConfigError, SampleError, TemplateOmissionWarning
from vlmcollate.explain.charts import bars, histogram
from vlmcollate.explain.mask_text import visible
from vlmcollate.explain.page import document
from vlmcollate.packing import plan_packs
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.tokens.vocabulary import Ints

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


@attrs.frozen(kw_only=True, eq=False)
class Survey:
    """The numbers of a dataset.

    Attributes:
        lengths: (N,) int64, the tokens of each row that does not fail.
        trained: (N,) int64, those that train.
        media: (N,) int64, those of media.
        items: How many media items there are of each kind.
        failures: For each kind of error, how many rows it drops and what the first one says.
    """

    lengths: Ints
    trained: Ints
    media: Ints
    items: dict[str, int]
    failures: dict[str, tuple[int, str]]

    def padding_waste(self, batch_size: int, *, grouped: bool = False) -> float:
        """The share of a batch's tokens that is padding, where each is padded to its longest row.

        Args:
            batch_size: The rows of a batch.
            grouped: Whether rows of like lengths share a batch, and not those that follow another.

        Example:
            >>> n = np.array([1, 2, 3])
            >>> Survey(lengths=n, trained=n, media=n, items={}, failures={}).padding_waste(3)
            0.33333333333333337
        """
        lengths = np.sort(self.lengths) if grouped else self.lengths
        starts = np.arange(0, len(lengths), batch_size)
        sizes = np.diff([*starts, len(lengths)])
        padded = int((np.maximum.reduceat(lengths, starts) * sizes).sum())
        return 1 - int(lengths.sum()) / padded

    def packing_fill(self, room: int) -> tuple[float, int, int]:
        """How full packs are.

        Args:
            room: The most tokens of a pack.

        Returns:
            The share of the room that tokens take up, the number of packs, and how many rows are
            too long for one.
        """
        plan = plan_packs(self.lengths, max_length=room, on_overlong="drop")
        return plan.fill, len(plan), len(plan.overlong)

    @property
    def rooms(self) -> list[int]:
        """Pack lengths worth a look: powers of two from the shortest row's to 4 x the longest's."""
        low = max(int(self.lengths.min()), 32)
        high = 4 * int(self.lengths.max())
        return [2**i for i in range(5, 21) if low <= 2**i <= high][-6:]


def survey(collator: BaseCollator, rows: Iterable[tuple[int, Any]]) -> Survey:
    """Encodes rows and counts.

    Args:
        collator: Encodes them.
        rows: What `read_rows` yields.

    Returns:
        The numbers.

    Raises:
        ConfigError: No row is good.
    """
    found: list[tuple[int, int, int]] = []
    items: Counter[str] = Counter()
    failures: dict[str, tuple[int, str]] = {}
    for number, row in rows:
        try:
            if isinstance(row, SampleError):
                raise row
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TemplateOmissionWarning)
                sample = collator.encode(row)
        except SampleError as error:
            name = type(error).__name__
            count, first = failures.get(name, (0, f"row {number}: {error}"))
            failures[name] = (count + 1, first)
            continue
        trained = int((sample.labels != IGNORE_INDEX).sum())
        found.append((len(sample), trained, int((sample.media_ids >= 0).sum())))
        items.update(sample.media_counts)
    if not found:
        reasons = "; ".join(f"{name}: {first}" for name, (_, first) in failures.items())
        raise ConfigError(f"no row is left to count; {reasons or 'there is none'}")
    lengths, trained_tokens, media = np.array(found, np.int64).T
    return Survey(
        lengths=lengths, trained=trained_tokens, media=media, items=dict(items), failures=failures
    )


def tables(found: Survey) -> list[Table]:
    """The numbers as tables for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("of a row", "least", "median", "mean", "95%", "most", "all"):
        shown.add_column(name, justify="left" if name == "of a row" else "right")
    for name, values in (
        ("tokens", found.lengths),
        ("trained tokens", found.trained),
        ("media tokens", found.media),
    ):
        numbers = (values.min(), np.median(values), values.mean(), np.percentile(values, 95))
        cells = (*numbers, values.max(), values.sum())
        shown.add_row(name, *(f"{cell:,.0f}" for cell in cells))
    share = 100 * found.trained / found.lengths
    parts = (share.min(), np.median(share), share.mean(), np.percentile(share, 95), share.max())
    overall = 100 * found.trained.sum() / found.lengths.sum()
    shown.add_row("trained share", *(f"{part:.1f}%" for part in (*parts, overall)))

    waste = Table("rows a batch", box=box.SIMPLE_HEAD, pad_edge=False)
    waste.add_column("padding, as they come", justify="right")
    waste.add_column("padding, grouped by length", justify="right")
    for size in BATCH_SIZES:
        both = (found.padding_waste(size), found.padding_waste(size, grouped=True))
        waste.add_row(str(size), *(f"{part:.1%}" for part in both))

    packing = Table("pack of", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("packs", "full", "rows too long"):
        packing.add_column(name, justify="right")
    for room in found.rooms:
        fill, packs, overlong = found.packing_fill(room)
        packing.add_row(f"{room:,}", f"{packs:,}", f"{fill:.1%}" if packs else "-", f"{overlong:,}")
    if not found.failures:
        return [shown, waste, packing]
    dropped = Table("dropped by", box=box.SIMPLE_HEAD, pad_edge=False)
    dropped.add_column("rows", justify="right")
    dropped.add_column("the first", overflow="fold")
    for name, (count, first) in found.failures.items():
        dropped.add_row(name, f"{count:,}", Text(visible(first)))
    return [shown, waste, packing, dropped]


def page(found: Survey, *, name: str) -> str:
    """The numbers as one HTML page that needs no network.

    Args:
        found: The numbers.
        name: What to call the data.
    """
    total = int(found.lengths.sum())
    tiles = [
        (f"{len(found.lengths):,}", "rows"),
        (f"{total:,}", "tokens"),
        (f"{found.trained.sum() / total:.1%}", "trained"),
        (f"{found.media.sum() / total:.1%}", "media"),
        *((f"{count:,}", f"{kind}s") for kind, count in found.items.items()),
        (f"{sum(count for count, _ in found.failures.values()):,}", "dropped"),
    ]
    shown = "".join(f"<div><b>{v}</b><span>{html.escape(n)}</span></div>" for v, n in tiles)
    dropped = "".join(
        f"<li><b>{count:,} {html.escape(kind)}</b>, the first: {html.escape(first)}</li>"
        for kind, (count, first) in found.failures.items()
    )
    notes = f'<ul class="notes">{dropped}</ul>' if dropped else ""
    body = (
        f"<header><h1>vlmcollate stats<small>{html.escape(name)}</small></h1>"
        '<button id="theme" type="button"></button></header>'
        '<div class="layout" style="grid-template-columns:minmax(0,1fr)"><main>'
        f'<section class="card"><div class="tiles">{shown}</div>{notes}</section>'
        f'<div class="charts">{"".join(_charts(found))}</div></main></div>'
    )
    return document(f"{name} - vlmcollate stats", body)


def _charts(found: Survey) -> list[str]:
    median = f"{int(np.median(found.lengths)):,}"
    share = np.round(100 * found.trained / found.lengths).astype(np.int64)
    charts = [
        histogram(found.lengths, title="Tokens of a row", about=f"The median is {median}."),
        histogram(share, title="Trained share of a row, %", about="What the loss is made of."),
    ]
    if found.media.any():
        about = "DummyMedia that stand for pictures, frames and sounds."
        charts.append(histogram(found.media, title="Media tokens of a row", about=about))
    waste = [found.padding_waste(size) for size in BATCH_SIZES]
    charts.append(
        _shares(
            waste,
            [str(size) for size in BATCH_SIZES],
            title="Padding by rows a batch",
            about="The share of a batch that is padding, with rows as they come.",
            unit="rows",
        )
    )
    fills = [found.packing_fill(room) for room in found.rooms]
    if fills:
        charts.append(
            _shares(
                [fill if packs else 0.0 for fill, packs, _ in fills],
                [f"{room:,}" for room in found.rooms],
                title="Fill of packs by their length",
                about="The share of a pack that holds tokens, without rows too long for one.",
                unit="tokens",
            )
        )
    if found.failures:
        names = list(found.failures)
        counts = [count for count, _ in found.failures.values()]
        tips = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
        charts.append(
            bars(
                counts,
                tips=tips,
                ticks=names,
                title="Dropped rows by reason",
                about="Rows that would raise this error.",
                labels=[str(count) for count in counts],
            )
        )
    return charts


def _shares(
    values: Sequence[float], ticks: Sequence[str], *, title: str, about: str, unit: str
) -> str:
    labels = [f"{value:.0%}" for value in values]
    tips = [f"{tick} {unit}: {value:.1%}" for tick, value in zip(ticks, values, strict=True)]
    return bars(values, tips=tips, ticks=ticks, title=title, about=about, labels=labels)


def run(
    console: Console, collator: BaseCollator, data: Path, *, rows: str, file: Path | None
) -> None:
    """Runs the command.

    Args:
        console: Where to print the tables.
        collator: Encodes the rows.
        data: Where the rows are.
        rows: Which ones.
        file: The HTML file to write besides, or `None`.
    """
    start, stop = row_range(rows)
    listed = track(
        read_rows(data, start=start, stop=stop),
        "Encoding",
        total=stop - start if stop is not None else None,
        console=console,
        transient=True,
    )
    found = survey(collator, listed)
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in found.items.items())
    console.print(
        f"[bold]{len(found.lengths):,} rows[/] with {kinds or 'no media'}", highlight=False
    )
    for table in tables(found):
        console.print(table)
    if file is not None:
        try:
            file.write_text(page(found, name=data.name), "utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the page: {error}") from error
        console.print(Text(f"plots: {file}"), soft_wrap=True)
