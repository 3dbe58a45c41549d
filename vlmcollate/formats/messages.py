"""Examples that hold a list of messages, under `messages` or `conversation`.

`{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import as_list, present_fields
from vlmcollate.formats.media_lists import MediaLists
from vlmcollate.formats.parts import read_content
from vlmcollate.plain_values import describe, plain, show, show_all, unwrap

_KEYS = ("messages", "conversation")
_ROLE = re.compile(r"[A-Za-z][\w \-]*")
_MIN_WEIGHT = float(np.finfo(np.float32).tiny)  # smaller ones lose digits, then become 0
_MAX_WEIGHT = float(np.finfo(np.float32).max)
_KEYS_OF_CALLS = frozenset({"tool_calls", "function_call", "tools", "functions"})


def is_format_of(fields: Mapping[str, Any]) -> bool:
    """Whether an example has this format."""
    return any(key in fields for key in _KEYS)


def read(fields: Mapping[str, Any], lists: MediaLists) -> tuple[Message, ...]:
    """Reads the messages of an example.

    Args:
        fields: The fields of the example.
        lists: Its media lists, for empty media parts.

    Returns:
        The messages in order.

    Raises:
        ConversationError: If a message is wrong, or there is none.
    """
    key = next(key for key in _KEYS if key in fields)
    return read_messages(fields[key], "messages", lists)


def read_messages(value: object, where: str, lists: MediaLists) -> tuple[Message, ...]:
    """Reads a list of messages; see `read`."""
    items = as_list(value, where)
    if not items:
        raise ConversationError("expected at least one message, found none", where=where)
    return tuple(_read_message(item, f"{where}[{i}]", lists) for i, item in enumerate(items))


def _read_message(value: object, where: str, lists: MediaLists) -> Message:
    fields = _fields_of(value, where)
    role = _pop_role(fields, where)
    weight = _pop_weight(fields, role, where)
    content = unwrap(fields.pop("content", None))
    if content is None and not fields:
        raise ConversationError("the message has no content", where=f"{where}.content")
    if content is None or (isinstance(content, str) and not content and "tool_calls" in fields):
        content = []  # templates test whether there is content besides the calls
    parts = read_content(content, f"{where}.content", lists)
    extra = {
        key: plain(item, f"{where}.{key}", allow_dates=key not in _KEYS_OF_CALLS)
        for key, item in fields.items()
    }
    return Message(role=role, content=parts, weight=weight, extra=extra)


def _fields_of(value: object, where: str) -> dict[str, Any]:
    value = unwrap(value)
    if not isinstance(value, Mapping):
        raise ConversationError(
            'expected a message such as {"role": "user", "content": ...}, found '
            f"{describe(value)}",
            where=where,
        )
    fields = present_fields(value)
    wrong = [key for key in fields if not isinstance(key, str)]
    if wrong:
        raise ConversationError(
            f"has keys that are not strings: {show_all(wrong)}; rename them", where=where
        )
    return fields


def _pop_role(fields: dict[str, Any], where: str) -> str:
    role = unwrap(fields.pop("role", None))
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ConversationError(
            f"expected a role such as 'user' or 'assistant', found {describe(role)}",
            where=f"{where}.role",
        )
    return role


def _pop_weight(fields: dict[str, Any], role: str, where: str) -> float:
    """The weight of a message in the loss, from `train` or `weight`."""
    train, weight = unwrap(fields.pop("train", None)), unwrap(fields.pop("weight", None))
    if train is not None and not isinstance(train, bool):
        raise ConversationError(f"expected a bool, found {describe(train)}", where=f"{where}.train")
    if weight is None:
        weight = 1.0 if train is None else float(train)
    elif train is not None:
        raise ConversationError("has both 'train' and 'weight'; keep one", where=where)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or (weight != 0 and not _MIN_WEIGHT <= weight <= _MAX_WEIGHT):
        raise ConversationError(
            "expected a finite weight of at least 0 that float32 holds (0, or "
            f"{_MIN_WEIGHT:.3g} to {_MAX_WEIGHT:.3g}), found {show(weight)}",
            where=f"{where}.weight",
        )
    if role != "assistant" and train:
        raise ConversationError(
            f"only assistant messages train, found 'train' in a {role!r} message; remove it",
            where=f"{where}.train",
        )
    return float(weight)
