"""How a row of a retrieval dataset becomes conversations: an anchor, a positive, and negatives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.formats.builtin import MESSAGE_LIST
from vlmcollate.formats.fields import as_list, is_hollow, parsed
from vlmcollate.objectives.embedding_inputs import (
    InputRow,
    Side,
    input_row,
    is_image,
    is_one_input,
    is_parts,
)
from vlmcollate.plain_values import show_all, unwrap

_COLUMNS: dict[Side, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "messages"),
    "positive": ("positive", "pos", "positive_messages"),
    "negative": ("negative", "negatives", "neg", "negative_messages"),
}
_NUMBERED = re.compile(r"negative_[0-9]+")
_MEDIA = ("images", "videos", "audios")


def input_rows(fields: Mapping[str, Any]) -> list[InputRow]:
    """Returns the inputs of a row: the anchor, the positive, and then the negatives.

    Args:
        fields: The fields of an example; see `row_of`.

    Raises:
        ConversationError: An input is missing, empty, or no conversation.
    """
    rest = dict(fields)
    inputs = {side: _pop(rest, side) for side in _COLUMNS}
    for side in ("anchor", "positive"):
        if len(inputs[side]) != 1:
            names = " or ".join(map(repr, _COLUMNS[side]))
            raise ConversationError(
                f"has {len(inputs[side])} inputs for {side!r}: found a dict with "
                f"{show_all(fields)}, expected one under {names}; make a row of each {side}"
            )
    media = {side: _pop_media(rest, side, len(inputs[side])) for side in _COLUMNS}
    media["anchor"] = [rest]
    return [
        input_row(side, where, value, beside)
        for side in _COLUMNS
        for (where, value), beside in zip(inputs[side], media[side], strict=True)
    ]


def _pop(rest: dict[str, Any], side: Side) -> list[tuple[str, Any]]:
    """Removes the inputs of one side from a row, each with its path."""
    names = [name for name in _COLUMNS[side] if name in rest]
    if side == "negative":
        names += sorted(filter(_NUMBERED.fullmatch, rest), key=lambda name: int(name[9:]))
    found: list[tuple[str, Any]] = []
    for name in names:
        value = _read(rest.pop(name), name)
        if side == "anchor" or not isinstance(value, list | tuple) or is_one_input(value):
            if side == "negative" and is_parts(value):
                raise ConversationError(
                    "is a list of parts, of one input or of several; write each input as a list "
                    "of messages, or a list of its parts inside this one",
                    where=name,
                )
            found.append((name, value))
        else:
            places = [f"{name}[{k}]" for k in range(len(value))]
            found += [(at, _read(item, at)) for at, item in zip(places, value, strict=True)]
    return found


def _read(value: Any, where: str) -> Any:
    """Returns an input, or several, as plain Python, but for images."""
    if is_image(value):  # of which datasets with a format stack several of one size
        return list(value) if getattr(value, "ndim", 0) == 4 else value
    value = unwrap(value)
    is_json = isinstance(value, str) and MESSAGE_LIST.match(value)
    return parsed(value, where, "[") if is_json else value


def _pop_media(rest: dict[str, Any], side: Side, number: int) -> list[dict[str, Any]]:
    """Removes the media of the inputs of one side, as in ms-swift: a list for each of them."""
    found: list[dict[str, Any]] = [{} for _ in range(number)]
    for key in _MEDIA if side != "anchor" else ():
        name = f"{side}_{key}"
        if is_hollow(rest.get(name)):
            rest.pop(name, None)
            continue
        lists = as_list(rest.pop(name), name)
        if len(lists) != number:
            raise ConversationError(
                f"has {len(lists)} items, expected {number}, a list for each {side}; correct it",
                where=name,
            )
        for beside, items in zip(found, lists, strict=True):
            beside.update({} if is_hollow(items) else {key: items})
    return found
