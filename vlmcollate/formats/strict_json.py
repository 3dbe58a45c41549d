"""JSON whose objects have each key once; Python's own parser keeps the last value in silence."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

_Pairs = list[tuple[str, Any]]


class RepeatedKeyError(ValueError):
    """An object of JSON has a key twice; never leaves the package.

    Args:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"an object has the key {key!r:.80} twice")


def parse_json(text: str) -> Any:
    """Parses JSON.

    Raises:
        RepeatedKeyError: An object has a key twice.
        json.JSONDecodeError: It is no JSON.
    """
    return _STRICT.decode(text)


def parse_rows(text: str) -> Any:
    """Parses JSON, the rows of whose list are each a value or the error of a repeated key."""
    try:
        return parse_json(text)
    except RepeatedKeyError:
        rows = _MARKING.decode(text)
        return [_first_error(row) or row for row in rows] if isinstance(rows, list) else rows


def _object(pairs: _Pairs) -> Any:
    found = _object_or_error(pairs)
    if isinstance(found, RepeatedKeyError):
        raise found
    return found


def _object_or_error(pairs: _Pairs) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counts = Counter(name for name, _ in pairs)
    return RepeatedKeyError(next(name for name, count in counts.items() if count > 1))


def _first_error(value: Any) -> RepeatedKeyError | None:
    """Returns the first error inside a value, or `None`."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, RepeatedKeyError):
            return found
        inner = found.values() if isinstance(found, dict) else found
        if isinstance(found, dict | list):
            left += reversed([*inner])
    return None


_STRICT = json.JSONDecoder(object_pairs_hook=_object)
_MARKING = json.JSONDecoder(object_pairs_hook=_object_or_error)
