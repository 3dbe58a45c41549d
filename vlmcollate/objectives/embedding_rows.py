"""How a row of a retrieval dataset becomes conversations: an anchor, a positive, and negatives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from PIL import Image

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import is_hollow
from vlmcollate.plain_values import describe, show_all, unwrap

Side = Literal["anchor", "positive", "negative"]
_COLUMNS: dict[Side, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "messages"),
    "positive": ("positive", "pos", "positive_messages"),
    "negative": ("negative", "negatives", "neg", "negative_messages"),
}
_ROLES = ("role", "from")
_NUMBERED = re.compile(r"negative_[0-9]+")
_KINDS = {"images": "image", "image": "image", "videos": "video", "video": "video"} | {
    "audios": "audio",
    "audio": "audio",
}


@attrs.frozen(kw_only=True)
class InputRow:
    """One input of a row.

    Attributes:
        side: What it is to the anchor.
        where: Its path in the dataset's row.
        row: A row of one conversation.
        has_messages: Whether the row is in the format of messages, and in no other.
    """

    side: Side
    where: str
    row: Mapping[str, Any]
    has_messages: bool

    def place(self, where: str | None) -> str:
        """Returns the path in the dataset's row of a path in `row`."""
        if where is None:
            return self.where
        if self.has_messages and where.startswith("messages"):
            return self.where + where[len("messages") :]
        return f"{self.where}, {where}"


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
    rows = [_input_row("anchor", *anchors[0], rest)]
    rows.append(_input_row("positive", *positives[0], {}))
    return rows + [_input_row("negative", where, value, {}) for where, value in negatives]


def _pop(rest: dict[str, Any], side: Side) -> list[tuple[str, Any]]:
    """Removes the inputs of one side from a row, each with its path."""
    names = [name for name in _COLUMNS[side] if name in rest]
    if side == "negative":
        names += sorted(filter(_NUMBERED.fullmatch, rest), key=lambda name: int(name[9:]))
    found: list[tuple[str, Any]] = []
    for name in names:
        value = unwrap(rest.pop(name))
        if side == "anchor" or not isinstance(value, list | tuple) or _is_chat(value):
            found.append((name, value))
        else:
            found += [(f"{name}[{k}]", unwrap(item)) for k, item in enumerate(value)]
    return found


def _is_chat(value: Any) -> bool:
    """Returns whether a list holds messages, rather than inputs."""
    first = unwrap(value[0]) if value else None
    return isinstance(first, Mapping) and any(key in first for key in _ROLES)


def _input_row(side: Side, where: str, value: Any, rest: Mapping[str, Any]) -> InputRow:
    if not isinstance(value, Image.Image) and is_hollow(value):
        raise ConversationError(
            f"is empty: found {describe(value)}, expected a text or a conversation; remove it",
            where=where,
        )
    messages = _messages(value, where)
    if messages is None:
        return InputRow(side=side, where=where, row={**rest, **value}, has_messages=False)
    return InputRow(side=side, where=where, row={**rest, "messages": messages}, has_messages=True)


def _messages(value: Any, where: str) -> Any:
    """Returns the messages of an input; `None` if it is a row of some format."""
    if isinstance(value, Image.Image):
        value = {"image": value}
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, Mapping):
        raise ConversationError(
            f"is no input: found {describe(value)}, expected a text, an image, messages, or a dict "
            "with 'text' and 'image'",
            where=where,
        )
    if any(key in value for key in _ROLES):
        return [value]
    fields = {key: item for key, item in value.items() if not is_hollow(item)}
    if not fields.keys() <= {"text", *_KINDS}:
        return None
    parts = [part for key, kind in _KINDS.items() for part in _media(fields.get(key), kind)]
    if "text" in fields:
        parts.append({"type": "text", "text": fields["text"]})
    return [{"role": "user", "content": parts}]


def _media(value: Any, kind: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    items = value if isinstance(value, list | tuple) else [value]
    return [{"type": kind, kind: item} for item in items]
