"""How a row of a retrieval dataset becomes conversations: an anchor, a positive, and negatives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.objectives.embedding_inputs import ROLES, InputRow, Side, input_row, is_image
from vlmcollate.plain_values import show_all, unwrap

_COLUMNS: dict[Side, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "messages"),
    "positive": ("positive", "pos", "positive_messages"),
    "negative": ("negative", "negatives", "neg", "negative_messages"),
}
_NUMBERED = re.compile(r"negative_[0-9]+")


def input_rows(fields: Mapping[str, Any]) -> list[InputRow]:
    """Returns the inputs of a row: the anchor, the positive, and then the negatives.

    Args:
        fields: The fields of an example; see `row_of`.

    Raises:
        ConversationError: An input is missing, empty, or no conversation.
    """
    rest = dict(fields)
    anchors, positives, negatives = (_pop(rest, side) for side in _COLUMNS)
    for side, found in (("anchor", anchors), ("positive", positives)):
        if len(found) != 1:
            names = " or ".join(map(repr, _COLUMNS[side]))  # type: ignore[index]  # one of its keys
            raise ConversationError(
                f"has {len(found)} inputs for {side!r}: found a dict with {show_all(fields)}, "
                f"expected one under {names}; make a row of each {side}"
            )
    rows = [input_row("anchor", *anchors[0], rest)]
    rows.append(input_row("positive", *positives[0], {}))
    return rows + [input_row("negative", where, value, {}) for where, value in negatives]


def _pop(rest: dict[str, Any], side: Side) -> list[tuple[str, Any]]:
    """Removes the inputs of one side from a row, each with its path."""
    names = [name for name in _COLUMNS[side] if name in rest]
    if side == "negative":
        names += sorted(filter(_NUMBERED.fullmatch, rest), key=lambda name: int(name[9:]))
    found: list[tuple[str, Any]] = []
    for name in names:
        given = rest.pop(name)
        value = given if is_image(given) else unwrap(given)
        if side == "anchor" or not isinstance(value, list | tuple) or _is_chat(value):
            found.append((name, value))
        else:
            found += [
                (f"{name}[{k}]", item if is_image(item) else unwrap(item))
                for k, item in enumerate(value)
            ]
    return found


def _is_chat(value: Any) -> bool:
    """Returns whether a list holds messages, rather than inputs."""
    first = unwrap(value[0]) if value else None
    return isinstance(first, Mapping) and any(key in first for key in ROLES)
