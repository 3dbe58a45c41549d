"""The parts of an explanation."""

from __future__ import annotations

from typing import Literal

import attrs

TokenClass = Literal["trained", "message", "template", "media", "padding"]
Difference = Literal["", "only here", "only there"]
DIFFERENCES: tuple[Difference, ...] = ("", "only here", "only there")
CLASSES: tuple[TokenClass, ...] = ("trained", "message", "template", "media", "padding")
MEANINGS: dict[TokenClass, str] = {
    "trained": "trained",
    "message": "message, not trained",
    "template": "written by the template",
    "media": "media",
    "padding": "padding",
}
"""The description of each class of tokens."""


@attrs.frozen(kw_only=True)
class Token:
    """One token.

    Attributes:
        id: Its id.
        text: Its characters of the prompt; "" if it only continues an earlier token's character.
        offset: The position of the first character, or `None` if the prompt does not contain it.
        role: The role of its message, or "" for the template's own text.
        message: The index of the message, or -1.
        kind: Its class.
        label: Its id if it is trained, otherwise `IGNORE_INDEX`.
    """

    id: int
    text: str
    offset: int | None
    role: str
    message: int
    kind: TokenClass
    label: int


@attrs.frozen(kw_only=True)
class Run:
    """Neighbouring tokens of one class, message and media item.

    Attributes:
        start: The first token.
        end: The token after the last.
        kind: Their class.
        message: The index of their message, or -1.
        media: The index of their media item, or -1.
        text: Their characters; for media, a mark such as `<image 1: 12 tokens>`.
        difference: The side that alone trains them, if another strategy disagrees; see
            `Explanation.compared`.
    """

    start: int
    end: int
    kind: TokenClass
    message: int
    media: int
    text: str
    difference: Difference = ""


@attrs.frozen(kw_only=True)
class Block:
    """The tokens of one message, with the header that the template puts before it.

    Attributes:
        start: The first token.
        end: The token after the last.
        message: The index of the message, or -1 for the template's own text.
        role: The role of the message, or "template".
    """

    start: int
    end: int
    message: int
    role: str
