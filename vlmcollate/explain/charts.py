"""Plots as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from math import floor, log10

import attrs
import numpy as np

from vlmcollate.tokens.vocabulary import Ints

_WIDTH, _HEIGHT = 420, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 36, 52
_FLOOR = _HEIGHT - _BOTTOM
_LETTER, _WIDEST = 6.4, 90
"""The width of a letter, and the maximum width of a bar."""


@attrs.frozen(kw_only=True)
class Axes:
    """The axes of a chart.

    Attributes:
        x: The name of the horizontal axis, with its unit.
        y: The name of the vertical axis, with its unit.
        ticks: The labels of the horizontal axis, each with its place: 0 is the left side of the
            first bar, 1 its right side.
        is_share: Whether the values are shares, which are shown in percent.
    """

    x: str
    y: str
    ticks: Sequence[tuple[float, str]]
    is_share: bool = False


def names_of_bars(names: Sequence[str]) -> list[tuple[float, str]]:
    """Returns ticks in the middle of each bar."""
    return [(place + 0.5, name) for place, name in enumerate(names)]


def histogram(values: Ints, *, title: str, about: str, x: str, most: int = 20) -> str:
    """Draws a histogram of rows.

    Args:
        values: (N,) at least one value.
        title: The chart's title.
        about: A sentence about the values.
        x: The name of the values, with their unit.
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
    if len(names) <= 6 and not any(" to " in name for name in names):
        ticks = names_of_bars(names)
    else:
        marks = _round_numbers(low, high, 5)
        places = np.interp(marks, edges, np.arange(len(edges)))
        ticks = [(float(at), f"{mark:,.0f}") for at, mark in zip(places, marks, strict=True)]
    axes = Axes(x=x, y="rows", ticks=ticks)
    return bars(counts.tolist(), tips=tips, axes=axes, title=title, about=about)


def bars(
    values: Sequence[float],
    *,
    tips: Sequence[str],
    axes: Axes,
    title: str,
    about: str,
    labels: Sequence[str] = (),
) -> str:
    """Draws bars side by side, over labelled axes.

    Args:
        values: At least one number of 0 or more.
        tips: The description of each bar.
        axes: The axes.
        title: The chart's title.
        about: A sentence about it.
        labels: The labels above the bars, if any.

    Returns:
        The markup of a chart; screen readers read the tips.
    """
    marks = _round_numbers(0, max(values) or 1, 4, is_whole=not axes.is_share)
    top = max(*values, marks[-1])
    step = (_WIDTH - _LEFT - _RIGHT) / len(values)
    gap = max(min(6.0, 0.2 * step), step - _WIDEST)
    drawn = _vertical_axis(marks, top, axes)
    for i, (value, tip) in enumerate(zip(values, tips, strict=True)):
        height = value / top * (_FLOOR - _TOP)
        x = _LEFT + i * step + gap / 2
        drawn.append(
            f'<rect x="{x:.1f}" y="{_FLOOR - height:.1f}" width="{step - gap:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{html.escape(tip)}</title></rect>'
        )
        if labels:
            drawn.append(_text(x + (step - gap) / 2, _FLOOR - height - 5, labels[i], "middle"))
    drawn += _horizontal_axis(step, axes)
    words = html.escape("; ".join(tips), quote=True)
    return (
        f'<section class="card chart"><h3>{html.escape(title)}</h3><p>{html.escape(about)}</p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">'
        f"{''.join(drawn)}</svg></section>"
    )


def _vertical_axis(marks: Sequence[float], top: float, axes: Axes) -> list[str]:
    """Draws the numbers of the vertical axis with lines across, and its name."""
    drawn = [_text(0, 14, axes.y, "start", "axis")]
    for mark in marks:
        y = _FLOOR - mark / top * (_FLOOR - _TOP)
        name = f"{mark:.0%}" if axes.is_share else f"{mark:,.0f}"
        drawn += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(_LEFT - 7, y + 4, name, "end")]
    return drawn


def _horizontal_axis(step: float, axes: Axes) -> list[str]:
    """Draws the ticks of the horizontal axis, in two lines if one is too short, and its name."""
    longest = max(len(name) for _, name in axes.ticks)
    lines = 2 if len(axes.ticks) > 1 and longest * _LETTER > step * _distance(axes.ticks) else 1
    drawn = [_line(_LEFT, _FLOOR, _WIDTH - _RIGHT, _FLOOR)]
    for number, (place, name) in enumerate(axes.ticks):
        x = _LEFT + place * step
        y = _FLOOR + 16 + 13 * (number % lines)
        drawn += [_line(x, _FLOOR, x, _FLOOR + 4), _text(x, y, name, "middle")]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [*drawn, _text(middle, _HEIGHT - 6, axes.x, "middle", "axis")]


def _distance(ticks: Sequence[tuple[float, str]]) -> float:
    """Returns the smallest distance of two ticks, in bars."""
    return min(b - a for (a, _), (b, _) in zip(ticks, ticks[1:], strict=False))


def _round_numbers(low: float, high: float, most: int, *, is_whole: bool = True) -> list[float]:
    """Returns a few multiples of 1, 2 or 5 times a power of 10 from `low` on.

    Args:
        low: The smallest number that may be among them.
        high: The largest number that may be among them.
        most: The number of steps that are aimed at.
        is_whole: Whether fractions are left out.
    """
    rough = (high - low) / most or 1.0
    unit = 10.0 ** floor(log10(rough))
    factors = (1, 2, 5, 10) if is_whole else (1, 2, 2.5, 5, 10)
    step = next(unit * factor for factor in factors if unit * factor >= rough)
    step = max(step, 1.0) if is_whole else step
    first = int(np.ceil(low / step - 1e-9))
    numbers = [step * i for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]
    return numbers or [low]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="1"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{html.escape(text)}</text>'
