"""The numbers of a survey as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.source_surveys import SourceSurvey, shares
from vlmcollate.cli.survey import BATCH_SIZES, Survey
from vlmcollate.explain.mask_text import visible


def survey_tables(survey: Survey) -> list[Table]:
    """Builds the tables of a survey."""
    tables = [_rows(survey), _padding(survey), _packing(survey)]
    if survey.shortened.rows:
        tables.append(_shortened(survey))
    return [*tables, _failures(survey)] if survey.failures else tables


def sources_table(surveys: Sequence[SourceSurvey]) -> Table:
    """Builds the table of the sources of a mixture, with their shares of what is drawn."""
    table = Table("source", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("share of rows", "share of tokens", "share of trained tokens"):
        table.add_column(name, justify="right")
    for found, parts in zip(surveys, shares(surveys), strict=True):
        table.add_row(Text(visible(found.source)), *(f"{part:.1%}" for part in parts))
    return table


def _rows(survey: Survey) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("per row", "minimum", "median", "mean", "95%", "maximum", "all"):
        table.add_column(name, justify="left" if name == "per row" else "right")
    for name, values in (
        ("tokens", survey.lengths),
        ("trained tokens", survey.trained),
        ("media tokens", survey.media),
    ):
        numbers = (values.min(), np.median(values), values.mean(), np.percentile(values, 95))
        cells = (*numbers, values.max(), values.sum())
        table.add_row(name, *(f"{cell:,.0f}" for cell in cells))
    share = 100 * survey.trained / survey.lengths
    parts = (share.min(), np.median(share), share.mean(), np.percentile(share, 95), share.max())
    overall = 100 * survey.trained.sum() / survey.lengths.sum()
    table.add_row("trained share", *(f"{part:.1f}%" for part in (*parts, overall)))
    return table


def _padding(survey: Survey) -> Table:
    table = Table("rows per batch", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("padding, in dataset order", justify="right")
    table.add_column("padding, grouped by length", justify="right")
    for size in BATCH_SIZES:
        both = (survey.padding_waste(size), survey.padding_waste(size, grouped=True))
        table.add_row(str(size), *(f"{part:.1%}" for part in both))
    return table


def _packing(survey: Survey) -> Table:
    table = Table("pack length", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("packs", "full", "rows too long"):
        table.add_column(name, justify="right")
    for length in survey.pack_lengths:
        fill, packs, overlong = survey.packing_fill(length)
        table.add_row(f"{length:,}", f"{packs:,}", f"{fill:.1%}" if packs else "-", f"{overlong:,}")
    return table


def _shortened(survey: Survey) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("shortened rows", "tokens cut off", "trained tokens cut off"):
        table.add_column(name, justify="right")
    found = survey.shortened
    table.add_row(*(f"{number:,}" for number in (found.rows, found.tokens, found.trained)))
    return table


def _failures(survey: Survey) -> Table:
    table = Table("dropped by", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("the first", overflow="fold")
    for name, (count, first) in survey.failures.items():
        table.add_row(name, f"{count:,}", Text(visible(first)))
    return table
