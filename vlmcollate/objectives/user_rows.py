"""Rows of a text and media alone, as retrieval and classification datasets have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.formats.media_columns import ALL_COLUMNS
from vlmcollate.formats.pairs import missing_answer
from vlmcollate.formats.registry import REGISTERED
from vlmcollate.formats.unread import METADATA
from vlmcollate.plain_values import describe, unwrap


def user_row(fields: Mapping[str, Any], where: str = "text") -> dict[str, Any] | None:
    """Returns a row with one message of the user, in the format of messages.

    Args:
        fields: The fields of an example.
        where: The path of its text, for errors.

    Returns:
        The row, with the media at its tags in the text, or before it, and the other fields; `None`
        if the example has neither, has a format of its own, or has more than media and metadata
        beside no text.

    Raises:
        ConversationError: The text is no string, or stands beside a question.
    """
    rest = {key: value for key, value in fields.items() if key != "text"}
    if "text" not in fields:
        others = rest.keys() - {*ALL_COLUMNS}
        is_media = len(others) < len(rest) and others <= METADATA
        return {"messages": [{"role": "user", "content": ""}], **rest} if is_media else None
    if any(known.reads(fields) for known in REGISTERED.values() if known.is_automatic):
        return None
    if missing_answer(fields) is not None:
        raise ConversationError(
            "stands beside a question, so one of the two would be ignored; write both as messages",
            where=where,
        )
    text = unwrap(fields["text"])
    if not isinstance(text, str):
        raise ConversationError(
            f"expected a string, found {describe(text)}; join the texts, or write them as messages",
            where=where,
        )
    return {"messages": [{"role": "user", "content": text}], **rest}
