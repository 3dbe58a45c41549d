"""The numbers that rows with two answers hold beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import describe, unwrap
from vlmcollate.preference.rows import SIDES, Side

_MEASURES = ("score", "rating", "reward")


def pop_number(row: dict[str, Any], name: str) -> float:
    """Reads a number of an example, and removes it from the example's fields.

    Raises:
        ConversationError: It is no finite number.
    """
    value = unwrap(row.pop(name))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConversationError(f"expected a finite number, found {describe(value)}", where=name)
    return float(value)


def pop_margin(row: dict[str, Any]) -> float | None:
    """Reads by how much the chosen answer is better, and removes it from the example's fields.

    Returns:
        The margin, or the difference between the scores of both answers; `None` if the row has
        neither.

    Raises:
        ConversationError: A number is wrong or missing, or the row has more than one margin.
    """
    scores = {name: [_columns(row, name, side) for side in SIDES] for name in _MEASURES}
    scores = {name: columns for name, columns in scores.items() if any(columns)}
    margins = [name for name in ("margin",) if name in row]
    _check_only([*margins, *(next(filter(None, columns))[0] for columns in scores.values())])
    if not scores:
        return pop_number(row, "margin") if margins else None
    ((measure, columns),) = scores.items()
    for names in columns:
        _check_only(names)
    if not all(columns):
        raise ConversationError(
            f"is missing beside the {measure} of the other answer; add it, or remove the other",
            where=_counterpart(next(filter(None, columns))[0]),
        )
    chosen, rejected = (pop_number(row, name) for (name,) in columns)
    return chosen - rejected


def _columns(row: dict[str, Any], measure: str, side: Side) -> list[str]:
    """Returns the columns of a row that hold a score of one answer."""
    spellings = (f"{measure}_{side}", f"{side}_{measure}", f"{side}-{measure}")
    return [name for name in spellings if name in row]


def _check_only(names: Sequence[str]) -> None:
    """Refuses two columns that hold the same."""
    if len(names) > 1:
        raise ConversationError(f"has {names[0]!r} and {names[1]!r}; keep one", where=names[1])


def _counterpart(column: str) -> str:
    """Returns the column of the other answer, in the same spelling."""
    side, other = SIDES if SIDES[0] in column else SIDES[::-1]
    return column.replace(side, other)
