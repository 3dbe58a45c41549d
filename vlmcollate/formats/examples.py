"""How an example becomes a conversation, whatever its format.

The simplest examples, messages of text, images, reasoning and calls and nothing else, are read in
one step. The formats read the others, give the same conversation for these, and the errors for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from vlmcollate.conversation import Conversation, MediaPart, Message, Part, TextPart
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.formats.base import DatasetFormat, row_of
from vlmcollate.formats.media_columns import TAG
from vlmcollate.formats.registry import REGISTERED, format_of
from vlmcollate.formats.simple import MESSAGE, ROLES, simple_message
from vlmcollate.formats.tools import read_tools
from vlmcollate.formats.unread import UnreadPolicy, report_unread
from vlmcollate.plain_values import is_encodable, show_all

_POLICIES = get_args(UnreadPolicy)


def read_example(
    example: object,
    format: str | DatasetFormat = "auto",  # noqa: A002  # the option of collators
    *,
    on_unread: UnreadPolicy = "auto",
) -> Conversation:
    """Converts an example to a conversation.

    Args:
        example: A row of a dataset in any of its formats, or a bare list of messages.

            A message is `{"role": ..., "content": ...}` with a string or a list of parts as its
            content, and optionally a weight in the loss: `"train": bool`, `"weight": float` (0, or
            a normal number of float32), or another common spelling.

            Beside the messages a row may hold media, such as `"images"`, which fill the empty media
            parts in order, or stand where the text has `<image>` tags, or before the first user
            text; `"system"`; `"chat_template_kwargs"`, variables for the template; and `"tools"`. A
            tool is a JSON schema, or a function with type hints and a docstring, from which
            `transformers.utils.get_json_schema` makes one.

            Keys whose value is `None` count as absent, since Arrow adds them. Arrays, Series and
            scalars of NumPy, pandas, Arrow and PyTorch count as the lists and values that they
            hold, and their missing values as `None`. JSON strings are parsed if a list or a dict is
            expected.
        format: A format, its name, or `"auto"` for the one that fits the row. If it is stated, the
            columns of other formats warn.
        on_unread: The policy for fields that nothing reads: `"auto"` refuses media, messages,
            tools, system prompts and masks, and warns of the rest; `"raise"`, `"warn"`, `"allow"`.

    Returns:
        The conversation. Of the caller's objects it refers only to the media.

    Raises:
        ConfigError: `format` or `on_unread` is wrong.
        ConversationError: The example has none of the formats, fits two that read it differently,
            or holds a wrong value; the error names its path.

    Example:
        >>> read_example([{"role": "user", "content": "Hi"}]).messages[0].content
        (TextPart(text='Hi', weight=None),)
    """
    if on_unread not in _POLICIES:
        raise ConfigError(
            f"on_unread is wrong: found {on_unread!r:.60}, expected one of {list(_POLICIES)}"
        )
    if format == "auto":
        simple = read_simple(example)
        if simple is not None:
            return simple
    chosen = format_of(format) or _format_that_fits(example)
    conversation = chosen.read(example)
    if conversation.unread:
        if format == "auto":
            _check_one_reading(example, chosen, conversation)
        settled: frozenset[str] = frozenset() if format == "auto" else _COLUMNS
        report_unread(conversation.unread, on_unread, settled=settled)
    return conversation


_COLUMNS = frozenset(
    {"messages", "conversation", "chat", "conversations", "texts", "prompt", "completion"}
)
"""The columns of messages of all formats, of which a stated format chooses one."""


def _fitting(example: object) -> Iterator[DatasetFormat]:
    row = row_of(example)
    return (known for known in REGISTERED.values() if known.is_automatic and known.reads(row))


def _format_that_fits(example: object) -> DatasetFormat:
    for known in _fitting(example):
        return known
    for known in (known for known in REGISTERED.values() if known.is_automatic):
        known.check_columns(row_of(example))
    raise ConversationError(
        "the example is not a conversation: expected a list of messages, or a dict in one of the "
        f"formats {list(REGISTERED)}; found a dict with {show_all(row_of(example))}"
    )


def _check_one_reading(example: object, chosen: DatasetFormat, conversation: Conversation) -> None:
    """Refuses a row that another format reads in another way.

    The columns of the other format count as read if their words stand in the conversation.
    """
    for other in _fitting(example):
        if other.name == chosen.name:
            continue
        try:
            second = other.read(example)
        except ConversationError:
            continue  # it has no second reading, and its columns are reported as unread
        left = conversation.unread.keys() - second.unread.keys()
        if left:
            raise ConversationError(
                f"has two readings: as {chosen.name!r}, and as {other.name!r} with "
                f"{show_all(left)}; set format={chosen.name!r} or format={other.name!r}"
            )


_ROW = {"messages", "tools"}
_TOOLS = frozenset({list, type(None)})
_TEXT = {"type", "text"}
_IMAGE = {"type", "image"}


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
    if value.keys() != MESSAGE:
        found = simple_message(value)
        return found if found is not None and _is_text(value["content"]) else None
    role, content = value["role"], value["content"]
    parts = _parts(content, index)
    if parts is None or type(role) is not str or role not in ROLES:
        return None
    return Message(role=role, content=parts, is_string=type(content) is str)


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
    if type(value) is not str or ("<" in value and TAG.search(value)):
        return False
    return value.isascii() or is_encodable(value)


def _is_image(value: object) -> bool:
    """Whether a value is an image of Pillow, or a path, a URL or encoded bytes."""
    if type(value) in (str, bytes):
        return bool(value)
    return type(value).__module__.startswith("PIL.")
