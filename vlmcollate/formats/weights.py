"""The spellings of whether, and with what weight, a message or a part trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import FLAGS, WEIGHTS, Fields
from vlmcollate.plain_values import describe, show, unwrap

SPELLINGS = (*FLAGS, *WEIGHTS)
"""All keys that are read as the weight of a message or a part."""

_MIN_WEIGHT = float(np.finfo(np.float32).tiny)  # smaller ones lose digits, then become 0
_MAX_WEIGHT = float(np.finfo(np.float32).max)


def pop_weight(fields: Fields) -> float | None:
    """Reads the weight in the loss under any of its spellings.

    Args:
        fields: The fields of a message or a part.

    Returns:
        The weight, or `None` if there is none.

    Raises:
        ConversationError: It is no weight, or two spellings contradict each other.
    """
    found = {key: _weight(fields.pop(key), key, fields) for key in fields.named(*SPELLINGS)}
    if len(set(found.values())) > 1:
        named = " and ".join(f"{key!r}: {value:g}" for key, value in found.items())
        raise ConversationError(
            f"has weights that contradict each other: {named}; keep one", where=fields.where
        )
    return next(iter(found.values()), None)


def _weight(value: Any, key: str, fields: Fields) -> float:
    value = unwrap(value)
    if isinstance(value, bool):
        if key == "weight":
            raise _wrong(value, key, fields)
        return float(value)
    if key in FLAGS and value not in (0, 1):
        raise ConversationError(
            f"expected a bool, 0 or 1, found {describe(value)}", where=fields.path(key)
        )
    is_number = isinstance(value, int | float)
    if not is_number or (value != 0 and not _MIN_WEIGHT <= value <= _MAX_WEIGHT):
        raise _wrong(value, key, fields)
    return float(value)


def _wrong(value: Any, key: str, fields: Fields) -> ConversationError:
    return ConversationError(
        "expected a finite weight of at least 0 that float32 holds (0, or "
        f"{_MIN_WEIGHT:.3g} to {_MAX_WEIGHT:.3g}), found {show(value)}",
        where=fields.path(key),
    )
