"""Rows of a text and media alone, as retrieval and classification datasets have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.formats.media_columns import COLUMNS

_MEDIA = {key for keys in COLUMNS.values() for key in keys}


def user_row(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a row with one message of the user, in the format of messages.

    Args:
        fields: The fields of an example.

    Returns:
        The row, with the media at its tags in the text, or before it; `None` if the example has
        other columns than `text` and those of media.
    """
    if not fields or not fields.keys() <= {"text", *_MEDIA}:
        return None
    media = {key: value for key, value in fields.items() if key != "text"}
    return {"messages": [{"role": "user", "content": fields.get("text", "")}], **media}
