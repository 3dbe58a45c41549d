"""How rows of interleaved corpora become documents: text and media without roles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaPart, Message
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats import UnreadPolicy, read_example
from vlmcollate.formats.fields import as_list, is_filler, is_hollow, parsed
from vlmcollate.formats.media_columns import PLAIN_TEXT
from vlmcollate.plain_values import describe, is_missing, show_all, unwrap

_FORMS = ("content", "texts", "text")
_CONTENT = "messages[0].content"
_PART_LIST = re.compile(r'\s*\[\s*\{\s*"type"\s*:')
"""The beginning of a JSON list of parts."""


def read_document(row: Mapping[str, Any], on_unread: UnreadPolicy = "auto") -> Conversation:
    """Reads a row as one plain text with media.

    Args:
        row: The fields of an example; see `DocumentCollator`.
        on_unread: The policy for parts of the content that nothing reads.

    Raises:
        ConversationError: The row is no document, or is empty.
    """
    forms = [name for name in _FORMS if name in row]
    if len(forms) != 1:
        raise ConversationError(
            f"is no document: found a dict with {show_all(row)}, expected one of 'content', "
            "'texts' beside 'images', and 'text'; rename the columns"
        )
    form = forms[0]
    is_empty = is_hollow(row[form]) and is_hollow(row.get("images"))
    conversation = None if is_empty else _read(row, form, on_unread)
    if conversation is None or not any(_holds(message) for message in conversation.messages):
        raise ConversationError("is empty, expected text or media; drop the row", where=form)
    return conversation


def _read(row: Mapping[str, Any], form: str, on_unread: UnreadPolicy) -> Conversation:
    if form == "text":
        return read_example(row, "text", on_unread=on_unread)
    if form == "texts":
        names, parts = _interleaved(row)
        return _document(parts, names, on_unread)
    parts = unwrap(row["content"])
    if isinstance(parts, str) and _PART_LIST.match(parts):
        parts = parsed(parts, "content", "[")
    parts = [parts] if isinstance(parts, str) else as_list(parts, "content")
    return _document(parts, [f"content[{k}]" for k in range(len(parts))], on_unread)


def _holds(message: Message) -> bool:
    """Returns whether a message holds text or media."""
    return any(isinstance(part, MediaPart) or part.text for part in message.content)


def _interleaved(row: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Returns the paths and the parts of a row of `texts` and `images`, as in OBELICS."""
    texts = [unwrap(text) for text in as_list(row["texts"], "texts")]
    images = as_list(row.get("images", [None] * len(texts)), "images")
    if len(texts) != len(images):
        raise ConversationError(
            f"has {len(images)} items, expected {len(texts)}, those of 'texts'; write None in the "
            "one list for each item of the other",
            where="images",
        )
    names, parts = [], []
    for k, (text, image) in enumerate(zip(texts, images, strict=True)):
        has_image = not is_filler(image)
        has_text = not (is_filler(text) if has_image else is_missing(text))
        if has_text == has_image:
            raise ConversationError(
                f"found {'an image' if has_image else 'no image'} at this place in 'images', "
                f"expected {'no text' if has_text else 'a text'}; give one of the two",
                where=f"texts[{k}]",
            )
        names.append(f"{'texts' if has_text else 'images'}[{k}]")
        if has_text and not isinstance(text, str):
            raise ConversationError(f"expected a string, found {describe(text)}", where=names[-1])
        parts.append(
            {"type": "text", "text": text} if has_text else {"type": "image", "image": image}
        )
    return names, parts


def _document(parts: Sequence[Any], names: Sequence[str], on_unread: UnreadPolicy) -> Conversation:
    """Reads parts as those of a message, and returns them as a plain text."""

    def place(where: str | None) -> str | None:
        for k, name in enumerate(names):
            start = f"{_CONTENT}[{k}]"
            if where is not None and where.startswith(start):
                return name + where[len(start) :]
        return where and where.replace(_CONTENT, names[0].split("[")[0])

    row = {"messages": [{"role": "user", "content": list(parts)}]}
    try:
        read = read_example(row, "messages", on_unread=on_unread)
    except SampleError as error:
        raise type(error)(error.problem, where=place(error.where)) from error.__cause__
    if read.messages[0].extra:
        raise ConversationError(
            f"holds more than text and media: found {show_all(read.messages[0].extra)}; write it "
            "as text, or remove it",
            where="content",
        )
    content = tuple(
        attrs.evolve(part, where=place(part.where) or "") if isinstance(part, MediaPart) else part
        for part in read.messages[0].content
    )
    return plain_document(content)


def plain_document(content: Sequence[Any]) -> Conversation:
    """Returns the conversation of a plain text with media."""
    message = Message(role=PLAIN_TEXT, content=tuple(content))
    return Conversation(messages=(message,), format="text", is_plain_text=True)
