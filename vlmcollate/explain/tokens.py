"""What an explanation is made of."""

from __future__ import annotations

from typing import Literal

import attrs

TokenClass = Literal["trained", "message", "template", "media", "padding"]
Difference = Literal["", "only here", "only there"]
DIFFERENCES: tuple[Difference, ...] = ("", "only here", "only there")
CLASSES: tuple[TokenClass, ...] = ("trained", "message", "template", "media", "padding")
MEANINGS: dict[TokenClass, str] = {
    "trained": "trained",
    "message": "said, not trained",
    "template": "control: written by the template",
    "media": "media",
    "padding": "padding",
}
"""What each class of tokens is called where people read it."""


@attrs.frozen(kw_only=True)
class Token:
    """One token.

    Attributes:
        id: Its id.
        text: Its characters of the prompt; "" where it only goes on with a character before it.
        offset: The first of them in the prompt, or `None` where the prompt does not hold it.
        role: Who says it, or "" for the template's own.
        message: The index of the message, or -1.
        kind: Its class.
        label: Its id where it is trained, `IGNORE_INDEX` elsewhere.
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
        difference: Where another strategy disagrees, who alone trains them; see
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
        message: The index of the message, or -1 for what the template says by itself.
        role: Who speaks.
    """

    start: int
    end: int
    message: int
    role: str
