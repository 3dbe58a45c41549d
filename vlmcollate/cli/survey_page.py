"""The numbers of a survey as an HTML page with charts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import numpy as np

from vlmcollate.cli.source_surveys import SourceSurvey
from vlmcollate.cli.survey import BATCH_SIZES, Survey
from vlmcollate.explain.charts import Axes, bars, histogram, names_of_bars
from vlmcollate.explain.page import document


def survey_page(surveys: Sequence[SourceSurvey], *, name: str) -> str:
    """Builds one HTML page that needs no network.

    Args:
        surveys: The numbers of the dataset, or of each source of the mixture.
        name: The name of the data.
    """
    body = (
        f"<header><h1>vlmcollate stats<small>{html.escape(name)}</small></h1>"
        '<button id="theme" type="button"></button></header>'
        '<div class="layout" style="grid-template-columns:minmax(0,1fr)"><main>'
        f"{''.join(map(_section, surveys))}</main></div>"
    )
    return document(f"{name} - vlmcollate stats", body)


def _section(found: SourceSurvey) -> str:
    title = f"<h2>{html.escape(found.source)}</h2>" if found.source else ""
    tiles = "".join(
        f"<div><b>{value}</b><span>{html.escape(label)}</span></div>"
        for value, label in _tiles(found.survey)
    )
    return (
        f'<section class="card">{title}<div class="tiles">{tiles}</div>{_notes(found.survey)}'
        f'</section><div class="charts">{"".join(_charts(found.survey))}</div>'
    )


def _tiles(survey: Survey) -> Iterator[tuple[str, str]]:
    """Yields the numbers on top of the page with their labels."""
    total = int(survey.lengths.sum())
    yield f"{len(survey.lengths):,}", "rows"
    yield f"{total:,}", "tokens"
    yield f"{survey.trained.sum() / total:.1%}", "trained"
    yield f"{survey.media.sum() / total:.1%}", "media"
    for kind, count in survey.items.items():
        yield f"{count:,}", f"{kind}s"
    yield f"{sum(count for count, _ in survey.failures.values()):,}", "dropped"


def _notes(survey: Survey) -> str:
    notes = "".join(
        f"<li><b>{count:,} {html.escape(kind)}</b>, the first: {html.escape(first)}</li>"
        for kind, (count, first) in survey.failures.items()
    )
    if (lost := survey.shortened).rows:
        notes += (
            f"<li><b>{lost.rows:,} rows shortened</b> to fit max_length, by {lost.tokens:,} "
            f"tokens, of which {lost.trained:,} train</li>"
        )
    return f'<ul class="notes">{notes}</ul>' if notes else ""


def _charts(survey: Survey) -> Iterator[str]:
    yield from _histograms(survey)
    yield _padding(survey)
    if survey.pack_lengths:
        yield _packing(survey)
    if survey.failures:
        yield _failures(survey)


def _histograms(survey: Survey) -> Iterator[str]:
    median = f"The median is {int(np.median(survey.lengths)):,}."
    yield histogram(survey.lengths, title="Tokens of a row", about=median, x="tokens of a row")
    share = np.round(100 * survey.trained / survey.lengths).astype(np.int64)
    about = "The tokens that the loss is computed on."
    yield histogram(share, title="Trained share of a row", about=about, x="trained share, %")
    if survey.media.any():
        about = "The tokens that stand for images, video frames and audio."
        yield histogram(
            survey.media, title="Media tokens of a row", about=about, x="media tokens of a row"
        )


def _padding(survey: Survey) -> str:
    return _shares(
        [survey.padding_waste(size) for size in BATCH_SIZES],
        [str(size) for size in BATCH_SIZES],
        title="Padding by rows per batch",
        about="The share of a batch that is padding, with rows in dataset order.",
        unit="rows",
        axes=("rows per batch", "padding, %"),
    )


def _packing(survey: Survey) -> str:
    fills = [survey.packing_fill(length) for length in survey.pack_lengths]
    return _shares(
        [fill if packs else 0.0 for fill, packs, _ in fills],
        [f"{length:,}" for length in survey.pack_lengths],
        title="Fill of packs by their length",
        about="The share of a pack that holds tokens, without rows too long for one.",
        unit="tokens",
        axes=("pack length, tokens", "fill, %"),
    )


def _failures(survey: Survey) -> str:
    names = list(survey.failures)
    counts = [count for count, _ in survey.failures.values()]
    return bars(
        counts,
        tips=[f"{name}: {count}" for name, count in zip(names, counts, strict=True)],
        axes=Axes(
            x="error",
            y="rows",
            ticks=names_of_bars([name.removesuffix("Error") for name in names]),
        ),
        title="Dropped rows by reason",
        about="Rows that would raise this error.",
        labels=[str(count) for count in counts],
    )


def _shares(
    values: Sequence[float],
    names: Sequence[str],
    *,
    title: str,
    about: str,
    unit: str,
    axes: tuple[str, str],
) -> str:
    labels = [f"{value:.0%}" for value in values]
    tips = [f"{name} {unit}: {value:.1%}" for name, value in zip(names, values, strict=True)]
    x, y = axes
    drawn = Axes(x=x, y=y, ticks=names_of_bars(names), is_share=True)
    return bars(values, tips=tips, axes=drawn, title=title, about=about, labels=labels)
