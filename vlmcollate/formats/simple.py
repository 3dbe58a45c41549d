"""Messages of the built-in types and the usual keys, read in one step.

The formats read the others, give the same message for these, and the errors for all.
"""

from __future__ import annotations

from typing import Any

from vlmcollate.conversation import Message, TextPart
from vlmcollate.plain_values import NotBuiltinError, copy_builtins, is_encodable

ROLES = frozenset({"system", "user", "assistant", "tool"})
MESSAGE = {"role", "content"}
_STRINGS = frozenset({"reasoning_content", "reasoning", "thinking", "tool_call_id", "name"})
_CALL = {"type", "id", "function"}
_FUNCTION = {"name", "arguments"}


def simple_message(value: object) -> Message | None:
    """Reads a message of a string, with or without reasoning, calls and the like.

    Returns:
        The message, or `None` if the value is anything else.
    """
    if type(value) is not dict or not value.keys() >= MESSAGE:
        return None
    role, content = value["role"], value["content"]
    if type(role) is not str or role not in ROLES or not is_encodable(content):
        return None
    calls: list[dict[str, Any]] | None = []
    extra: dict[str, Any] = {}
    for key, item in value.items():
        if key in MESSAGE or item is None:  # Arrow adds None for the keys of other messages
            continue
        if key in _STRINGS and is_encodable(item):
            extra[key] = item
        elif key == "tool_calls":
            calls = _calls(item)
        else:
            return None
    if calls is None:
        return None
    is_silent = bool(calls) and not content  # templates test whether there is content besides
    return Message(
        role=role,
        content=() if is_silent else (TextPart(content),),
        extra={"tool_calls": calls, **extra} if calls else extra,
        is_string=True,
    )


def _calls(value: object) -> list[dict[str, Any]] | None:
    """Copies the calls of a message; `None` if one is of no simple form."""
    if type(value) is not list:
        return None
    found = []
    for call in value:
        if type(call) is not dict or not call.keys() <= _CALL:
            return None
        function = call.get("function")
        if type(function) is not dict or function.keys() != _FUNCTION:
            return None
        name, given = function["name"], function["arguments"]
        names = (call.get("type", ""), call.get("id", ""), name)
        if not all(map(is_encodable, names)) or not name or type(given) is not dict:
            return None
        try:
            arguments = copy_builtins(given)
        except NotBuiltinError:
            return None
        number = {"id": call["id"]} if "id" in call else {}
        called = {"name": name, "arguments": arguments}
        found.append({"type": "function", **number, "function": called})
    return found
