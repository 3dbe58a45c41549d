"""What one input of an embedding model may be, as a row of one conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import Image

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import is_hollow
from vlmcollate.objectives.user_rows import user_row
from vlmcollate.plain_values import describe

Side = Literal["anchor", "positive", "negative"]
ROLES = ("role", "from")


@attrs.frozen(kw_only=True)
class InputRow:
    """One input of a row.

    Attributes:
        side: What it is to the anchor.
        where: Its path in the dataset's row.
        row: A row of one conversation.
        form: Whether the input is a row itself, a list of messages, or one message's content.
    """

    side: Side
    where: str
    row: Mapping[str, Any]
    form: Literal["row", "messages", "content"]

    def place(self, where: str | None) -> str:
        """Returns the path in the dataset's row of a path in `row`."""
        is_own = where is not None and self.form != "row" and where.startswith("messages")
        if where is None or (is_own and self.form == "content"):
            return self.where
        return self.where + where[len("messages") :] if is_own else f"{self.where}, {where}"


def is_image(value: Any) -> bool:
    """Returns whether a value is an image, decoded or not, but no path."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim > 1
    is_stored = isinstance(value, Mapping) and value.get("bytes") is not None
    return isinstance(value, Image.Image) or (is_stored and value.keys() <= {"bytes", "path"})


def input_row(side: Side, where: str, value: Any, rest: Mapping[str, Any]) -> InputRow:
    """Returns the row of one input.

    Args:
        side: What it is to the anchor.
        where: Its path.
        value: The input.
        rest: Further columns of its row.

    Raises:
        ConversationError: It is empty, or no input.
    """
    if not is_image(value) and is_hollow(value):
        raise ConversationError(
            f"is empty: found {describe(value)}, expected a text or a conversation; remove it",
            where=where,
        )
    if isinstance(value, list | tuple):
        row = {**rest, "messages": list(value)}
        return InputRow(side=side, where=where, row=row, form="messages")
    if isinstance(value, Mapping) and any(key in value for key in ROLES):
        return InputRow(side=side, where=where, row={**rest, "messages": [value]}, form="content")
    if isinstance(value, str):
        value = {"text": value}
    elif is_image(value):
        value = {"image": value}
    elif not isinstance(value, Mapping):
        raise ConversationError(
            f"is no input: found {describe(value)}, expected a text, an image, messages, or a dict "
            "with 'text' and 'image'",
            where=where,
        )
    given = {key: item for key, item in value.items() if is_image(item) or not is_hollow(item)}
    asked = user_row(given)
    return InputRow(
        side=side,
        where=where,
        row={**rest, **(value if asked is None else asked)},
        form="row" if asked is None else "content",
    )
