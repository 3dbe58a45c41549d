"""Reading the fields of rows, messages and parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import describe, is_missing, unwrap

_NUMBERS = frozenset({"weight", "fps", "sampling_rate", "channel_axis"})


def present_fields(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Drops the fields that a library filled in, such as `None` for the keys that a row lacks.

    NaN stays under the keys that hold a number, so that reading the number refuses it.
    """
    return {
        unwrap(key): item
        for key, item in value.items()
        if not is_missing(item) or (key in _NUMBERS and unwrap(item) is not None)
    }


def as_list(value: object, where: str) -> list[Any]:
    """Converts an array or a sequence to a list.

    Args:
        value: A list, a tuple, or an array or Series of any library.
        where: Its path in the example, for errors.

    Raises:
        ConversationError: If it is anything else.
    """
    value = unwrap(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise ConversationError(f"expected a list, found {describe(value)}", where=where)
