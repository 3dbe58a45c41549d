"""Copies of the containers of rows, for streams that use one container for several rows."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from typing import Any

_PLAIN_WRITES = (dict.__setitem__, OrderedDict.__setitem__)
_PLAIN_COPY: Any = object.__reduce_ex__


def snapshot(row: Any) -> Any:
    """Returns a row as it is now, whatever a stream writes to its containers later.

    Dictionaries, lists and tuples are copied, at any depth; a container that occurs twice is copied
    once. Images, arrays, strings and all other objects are shared with the row.

    Args:
        row: The row.
    """
    copies: dict[int, Any] = {}
    waiting: list[tuple[Any, Any]] = []

    def copied(value: Any) -> Any:
        if type(value) is tuple:
            return tuple([copied(item) for item in value])
        if not _is_container(value):
            return value
        found = copies.get(id(value))
        if found is None:
            found = copies[id(value)] = copy(value)
            waiting.append((value, found))
        return found

    try:
        result = copied(row)
        for value, target in waiting:  # which grows, as a recursion would fail in a deep row
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if type(item) is not str:
                    target[key] = copied(item)
    except RecursionError:  # of tuples inside of tuples, which the encoder refuses
        return row
    return result


def _is_container(value: Any) -> bool:
    """Whether a value is a list, or a dictionary without a behavior of its own."""
    kind = type(value)
    if kind is dict or kind is list:
        return True
    is_plain = isinstance(value, dict) and kind.__setitem__ in _PLAIN_WRITES
    return is_plain and kind.__reduce_ex__ is _PLAIN_COPY
