"""How rows of interleaved corpora become documents: text and media without roles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vlmcollate.conversation import Conversation, MediaPart, Message, Part
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats import MessagesFormat, TextFormat, UnreadPolicy, read_example
from vlmcollate.formats.fields import Fields, as_list, is_filler, is_hollow, parsed
from vlmcollate.formats.media_columns import ALL_COLUMNS, PLAIN_TEXT
from vlmcollate.formats.pairs import MESSAGE_COLUMNS
from vlmcollate.formats.unread import METADATA, report_unread
from vlmcollate.formats.weights import SPELLINGS, pop_weight
from vlmcollate.plain_values import describe, is_missing, show_all, unwrap

_CONTENT = "messages[0].content"
_OF_CHATS = tuple(key for key in MESSAGE_COLUMNS if key != "texts")
_READ = frozenset({"content", "texts", *ALL_COLUMNS, *SPELLINGS, *METADATA})
"""The columns of which none is reported as unread."""
_PART_LIST = re.compile(r'\s*\[\s*\{\s*"type"\s*:')
"""The beginning of a JSON list of parts."""


def read_document(
    row: Mapping[str, Any],
    on_unread: UnreadPolicy = "auto",
    text_format: TextFormat = TextFormat(),  # noqa: B008  # a value
) -> Conversation:
    """Reads a row as one plain text with media.

    Args:
        row: The fields of an example; see `DocumentCollator`.
        on_unread: The policy for parts of the content that nothing reads.
        text_format: The format of a text with tags, whose folder of media holds for all forms.

    Raises:
        ConversationError: The row is no document, or is empty.
    """
    form = form_of(row, text_format)
    is_empty = is_hollow(row[form]) and is_hollow(row.get("images"))
    conversation = None if is_empty else _read(row, form, on_unread, text_format)
    if conversation is None or not any(_holds(message) for message in conversation.messages):
        raise ConversationError("is empty, expected text or media; drop the row", where=form)
    return conversation


def form_of(row: Mapping[str, Any], text_format: TextFormat) -> str:
    """Returns the column that holds the text of a document.

    Raises:
        ConversationError: There is none, or there are two.
    """
    known = ("content", "texts", text_format.column)
    forms = [name for name in (*known, *_OF_CHATS) if name in row]
    if len(forms) == 1 and forms[0] not in _OF_CHATS:
        return forms[0]
    raise ConversationError(
        f"is no document: found a dict with {show_all(row)}, expected one of 'content', "
        f"'texts' beside 'images', and {text_format.column!r}; rename the columns"
    )


def _read(
    row: Mapping[str, Any], form: str, on_unread: UnreadPolicy, text_format: TextFormat
) -> Conversation:
    if form not in ("content", "texts"):
        return read_example(row, text_format, on_unread=on_unread)
    columns = {key: row[key] for key in ALL_COLUMNS if key in row}
    if form == "texts":
        columns = _without_images(columns)
        names, parts = _interleaved(row)
    else:
        parts = _parts(row)
        names = [f"content[{k}]" for k in range(len(parts))]
    if on_unread == "raise":
        report_unread({k: v for k, v in row.items() if k not in _READ}, on_unread)
    messages = {"messages": [{"role": "user", "content": parts}], **columns}
    read = partial(
        read_example,
        format=MessagesFormat(media_root=text_format.media_root),
        on_unread=on_unread,
    )
    weight = pop_weight(Fields({key: row[key] for key in SPELLINGS if key in row}, ""))
    return plain_document(
        _document(messages, names, read), weight=1.0 if weight is None else weight
    )


def _parts(row: Mapping[str, Any]) -> list[Any]:
    parts = unwrap(row["content"])
    if isinstance(parts, str) and _PART_LIST.match(parts):
        parts = parsed(parts, "content", "[")
    return [parts] if isinstance(parts, str) else as_list(parts, "content")


def _without_images(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Refuses media beside `texts` and `images`, which has no place among them.

    Returns:
        No column, since all images stand in parts.
    """
    for key in columns:
        if key != "images" and not is_hollow(columns[key]):
            raise ConversationError(
                "is media without a place among 'texts' and 'images'; write parts under "
                "'content', or remove it",
                where=key,
            )
    return {}


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


def _document(
    row: Mapping[str, Any], names: Sequence[str], read: Callable[[object], Conversation]
) -> Sequence[Part]:
    """Reads parts as those of a message, whose paths are those of the dataset's row."""

    def place(where: str | None) -> str | None:
        for k, name in enumerate(names):
            start = f"{_CONTENT}[{k}]"
            if where is not None and where.startswith(start):
                return name + where[len(start) :]
        return where and where.replace(_CONTENT, names[0].split("[")[0])

    try:
        (message,) = read(row).messages
    except SampleError as error:
        raise type(error)(error.problem, where=place(error.where)) from error.__cause__
    if message.extra:
        raise ConversationError(
            f"holds more than text and media: found {show_all(message.extra)}; write it "
            "as text, or remove it",
            where="content",
        )
    if any(part.weight is not None for part in message.content):
        raise ConversationError(
            "a part has a weight, but all text of a document trains alike; remove it, or give a "
            "weight to the row",
            where="content",
        )
    return message.placed(place).content


def plain_document(content: Sequence[Part], weight: float = 1.0) -> Conversation:
    """Returns the conversation of a plain text with media.

    Args:
        content: The text and the media.
        weight: The weight of the text in the loss.
    """
    message = Message(role=PLAIN_TEXT, content=tuple(content), weight=weight)
    return Conversation(messages=(message,), format="text", is_plain_text=True)
