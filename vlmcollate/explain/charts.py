"""Plots as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from vlmcollate.tokens.vocabulary import Ints

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 190, 8, 18, 22


def histogram(values: Ints, *, title: str, about: str, most: int = 20) -> str:
    """Draws a histogram.

    Args:
        values: (N,) at least one value.
        title: The chart's title.
        about: A sentence about the values.
        most: The maximum number of bars.

    Returns:
        The markup of a chart.
    """
    low, high = int(values.min()), int(values.max())
    count = min(most, high - low + 1)
    edges = np.unique(np.linspace(low, high + 1, count + 1).astype(int))
    counts, _ = np.histogram(values, edges)
    names = [
        f"{a:,}" if b - a == 1 else f"{a:,} to {b - 1:,}"
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    tips = [f"{name}: {n:,}" for name, n in zip(names, counts, strict=True)]
    ticks = [f"{low:,}", f"{high:,}"]
    return bars(counts.tolist(), tips=tips, ticks=ticks, title=title, about=about)


def bars(
    values: Sequence[float],
    *,
    tips: Sequence[str],
    ticks: Sequence[str],
    title: str,
    about: str,
    labels: Sequence[str] = (),
) -> str:
    """Draws bars side by side.

    Args:
        values: At least one number of 0 or more.
        tips: The description of each bar.
        ticks: The labels below: one for each bar, or those of the first and the last.
        title: The chart's title.
        about: A sentence about it.
        labels: The labels above the bars, if any.

    Returns:
        The markup of a chart; screen readers read the tips.
    """
    top = max(values) or 1
    step = (_WIDTH - 2 * _LEFT) / len(values)
    gap = min(6.0, 0.2 * step)
    floor = _HEIGHT - _BOTTOM
    drawn = []
    for i, (value, tip) in enumerate(zip(values, tips, strict=True)):
        height = value / top * (floor - _TOP)
        x = _LEFT + i * step + gap / 2
        drawn.append(
            f'<rect x="{x:.1f}" y="{floor - height:.1f}" width="{step - gap:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{html.escape(tip)}</title></rect>'
        )
        if labels:
            drawn.append(_text(x + (step - gap) / 2, floor - height - 5, labels[i], "middle"))
    drawn.append(
        f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - _LEFT}" y2="{floor}" stroke-width="1"/>'
    )
    if len(ticks) == len(values):
        places = [(_LEFT + (i + 0.5) * step, "middle") for i in range(len(ticks))]
    else:
        places = [(_LEFT, "start"), (_WIDTH - _LEFT, "end")]
    drawn += [
        _text(x, _HEIGHT - 6, tick, anchor)
        for (x, anchor), tick in zip(places, ticks, strict=False)
    ]
    words = html.escape("; ".join(tips), quote=True)
    return (
        f'<section class="card chart"><h3>{html.escape(title)}</h3><p>{html.escape(about)}</p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">'
        f"{''.join(drawn)}</svg></section>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
