"""What one input of an embedding model may be, as a row of one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import Image

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import is_hollow
from vlmcollate.formats.media_columns import ALL_COLUMNS
from vlmcollate.formats.unread import METADATA
from vlmcollate.objectives.user_rows import user_row
from vlmcollate.plain_values import describe, plain_text, unwrap

Side = Literal["anchor", "positive", "negative"]


@attrs.frozen(kw_only=True)
class InputRow:
    """One input of a row.

    Attributes:
        side: What it is to the anchor.
        where: Its path in the dataset's row.
        row: A row of one conversation.
        form: Whether the input is a row itself, a text with media, a list of messages, or one
            message's content.
        instruction: Its own system message; empty if it has none.
    """

    side: Side
    where: str
    row: Mapping[str, Any]
    form: Literal["row", "text", "messages", "content"]
    instruction: str = ""

    def place(self, where: str | None) -> str:
        """Returns the path in the dataset's row of a path in `row`."""
        is_own = where is not None and self.form != "row" and where.startswith("messages")
        if where is None or (is_own and self.form != "messages"):
            return self.where
        return self.where + where[len("messages") :] if is_own else f"{self.where}, {where}"


def is_image(value: Any) -> bool:
    """Returns whether a value is an image, decoded or not, but no path."""
    if isinstance(value, np.ndarray):  # datasets stack messages as arrays of objects
        return value.ndim > 1 and value.dtype.kind in "biuf"
    if isinstance(value, torch.Tensor):
        return value.ndim > 1
    is_stored = isinstance(value, Mapping) and value.get("bytes") is not None
    return isinstance(value, Image.Image) or (is_stored and value.keys() <= {"bytes", "path"})


def is_one_input(items: Sequence[Any]) -> bool:
    """Returns whether a list is one input, of messages or parts, rather than several inputs."""
    return bool(items) and (_is_message(items[0]) or _is_part(items[0]))


def is_parts(value: Any) -> bool:
    """Returns whether a value is a list of the parts of a message."""
    return isinstance(value, list | tuple) and bool(value) and _is_part(value[0])


def _is_message(value: Any) -> bool:
    value = unwrap(value) if not is_image(value) else None
    return isinstance(value, Mapping) and any(key in value for key in ("role", "from"))


def _is_part(value: Any) -> bool:
    value = unwrap(value) if not is_image(value) else None
    is_typed = isinstance(value, Mapping) and isinstance(unwrap(value.get("type")), str)
    return is_typed and not _is_message(value)


def input_row(side: Side, where: str, value: Any, rest: Mapping[str, Any]) -> InputRow:
    """Returns the row of one input.

    Args:
        side: What it is to the anchor.
        where: Its path.
        value: The input.
        rest: Further columns of its row.

    Raises:
        ConversationError: It is empty, no input, or holds a column that stands beside it, too.
    """
    form: Literal["messages", "content"] = "messages"
    if not is_image(value) and is_hollow(value):
        raise ConversationError(
            f"is empty: found {describe(value)}, expected a text or a conversation; remove it",
            where=where,
        )
    if _is_message(value) or _is_part(value):
        value, form = [value], "content"
    if isinstance(value, list | tuple):
        messages = list(value)
        if is_parts(value):
            messages, form = [{"role": "user", "content": messages}], "content"
        return InputRow(side=side, where=where, row={**rest, "messages": messages}, form=form)
    given = _fields(value, where)
    both = [key for key in given if not is_hollow(rest.get(key))]
    if both:
        raise ConversationError(
            f"holds {both[0]!r}, and so does the row beside it; keep one", where=where
        )
    instruction = _pop_instruction(given, where)
    asked = user_row(given, f"{where}.text")
    return InputRow(
        side=side,
        where=where,
        row={**rest, **(given if asked is None else asked)},
        form="row" if asked is None else "text",
        instruction=instruction,
    )


def _fields(value: Any, where: str) -> dict[str, Any]:
    """Returns the fields of an input that is no list, without empty ones."""
    if isinstance(value, str):
        return {"text": value}
    if is_image(value):
        return {"image": value}
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if is_image(item) or not is_hollow(item)}
    raise ConversationError(
        f"is no input: found {describe(value)}, expected a text, an image, messages, or a dict "
        "with 'text' and 'image'",
        where=where,
    )


def _pop_instruction(given: dict[str, Any], where: str) -> str:
    """Removes the instruction beside a text or media, as Qwen3-VL-Embedding has it."""
    others = given.keys() - {"instruction"}
    if len(others) == len(given) or not others or not others <= {"text", *ALL_COLUMNS, *METADATA}:
        return ""
    text = unwrap(given.pop("instruction"))
    if not isinstance(text, str):
        raise ConversationError(
            f"expected a string, found {describe(text)}; write one text",
            where=f"{where}.instruction",
        )
    return plain_text(text, f"{where}.instruction")
