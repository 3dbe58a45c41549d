"""Examples and messages of the built-in types and the usual keys, read in one step.

The formats read the others, give the same conversation for these, and the errors for all.
"""

from __future__ import annotations

from typing import Any

from vlmcollate.conversation import Conversation, MediaPart, Message, Part, TextPart
from vlmcollate.formats.media_columns import TAG
from vlmcollate.formats.tools import read_tools
from vlmcollate.plain_values import NotBuiltinError, copy_builtins, is_encodable

_ROW = {"messages", "tools"}
_TOOLS = frozenset({list, type(None)})
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_MESSAGE = {"role", "content"}
_STRINGS = frozenset({"reasoning_content", "reasoning", "thinking", "tool_call_id", "name"})
_TEXT = {"type", "text"}
_IMAGE = {"type", "image"}
_CALL = {"type", "id", "function"}
_FUNCTION = {"name", "arguments"}


def read_simple(example: object) -> Conversation | None:
    """Reads a list of messages of the built-in types, or a dict that holds one and any tools.

    Returns:
        The conversation, or `None` if the example is anything else.

    Raises:
        ConversationError: The messages are simple, but a tool is wrong.
    """
    tools = None
    if type(example) is dict and "messages" in example and example.keys() <= _ROW:
        tools = example.get("tools")
        example = example["messages"]
    if type(example) is not list or not example or type(tools) not in _TOOLS:
        return None
    messages = []
    for i, value in enumerate(example):
        message = _plain_message(value, i)
        if message is None:
            return None
        messages.append(message)
    read = None if tools is None else read_tools(tools, "tools")
    return Conversation(messages=tuple(messages), tools=read or None)


def _plain_message(value: object, index: int) -> Message | None:
    """Reads a message of the built-in types without tags of media."""
    if type(value) is not dict:
        return None
    if value.keys() != _MESSAGE:
        found = simple_message(value)
        return found if found is not None and _is_text(value["content"]) else None
    role, content = value["role"], value["content"]
    parts = _parts(content, index)
    if parts is None or type(role) is not str or role not in _ROLES:
        return None
    return Message(role=role, content=parts, is_string=type(content) is str)


def simple_message(value: object) -> Message | None:
    """Reads a message of a string, with or without reasoning, calls and the like.

    Returns:
        The message, or `None` if the value is anything else.
    """
    if type(value) is not dict or not value.keys() >= _MESSAGE:
        return None
    role, content = value["role"], value["content"]
    if type(role) is not str or role not in _ROLES or not is_encodable(content):
        return None
    calls: list[dict[str, Any]] | None = []
    extra: dict[str, Any] = {}
    for key, item in value.items():
        if key in _MESSAGE or item is None:  # Arrow adds None for the keys of other messages
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
        is_string=not is_silent,
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


def _parts(content: object, index: int) -> tuple[Part, ...] | None:
    if type(content) is str:
        return (TextPart(content),) if _is_text(content) else None
    if type(content) is not list:
        return None
    parts: list[Part] = []
    for i, value in enumerate(content):
        if type(value) is not dict:
            return None
        if value.keys() == _TEXT and value["type"] == "text" and _is_text(value["text"]):
            parts.append(TextPart(value["text"]))
        elif value.keys() == _IMAGE and value["type"] == "image" and _is_image(value["image"]):
            parts.append(MediaPart("image", value["image"], f"messages[{index}].content[{i}]"))
        else:
            return None
    return tuple(parts)


def _is_text(value: object) -> bool:
    """Returns whether a value is a text that a tokenizer can encode, without tags of media."""
    return type(value) is str and not ("<" in value and TAG.search(value)) and is_encodable(value)


def _is_image(value: object) -> bool:
    """Whether a value is an image of Pillow, or a path, a URL or encoded bytes."""
    if type(value) in (str, bytes):
        return bool(value)
    return type(value).__module__.startswith("PIL.")
