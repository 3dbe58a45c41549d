"""A fast way for the simplest examples: plain messages of text and images, and nothing else.

Whatever else an example holds, it is read by the other modules, which give the same conversation
for these examples, and the errors for all.
"""

from __future__ import annotations

from vlmcollate.conversation import Conversation, MediaPart, Message, Part, TextPart

_ROLES = frozenset({"system", "user", "assistant"})
_MESSAGE = {"role", "content"}
_TEXT = {"type", "text"}
_IMAGE = {"type", "image"}


def read_simple(example: object) -> Conversation | None:
    """Reads a list of messages of the built-in types, or a dict that holds one.

    Returns:
        The conversation, or `None` if the example is anything else.
    """
    if type(example) is dict and example.keys() == {"messages"}:
        example = example["messages"]
    if type(example) is not list or not example:
        return None
    messages = []
    for i, value in enumerate(example):
        if type(value) is not dict or value.keys() != _MESSAGE:
            return None
        role, content = value["role"], value["content"]
        parts = _parts(content, i)
        if parts is None or type(role) is not str or role not in _ROLES:
            return None
        messages.append(Message(role=role, content=parts))
    return Conversation(messages=tuple(messages))


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
    """Whether a value is a text that a tokenizer can encode."""
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_image(value: object) -> bool:
    """Whether a value is an image of Pillow, or a path, a URL or encoded bytes."""
    return type(value) in (str, bytes) or type(value).__module__.startswith("PIL.")
