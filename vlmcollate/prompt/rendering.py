"""A rendered prompt, and where everything in it came from."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import MediaKind
from vlmcollate.errors import LabelError
from vlmcollate.prompt.marks import Span


@attrs.frozen
class MediaSpan(Span):
    """A placeholder that the template wrote."""

    kind: MediaKind = "image"


@attrs.frozen(kw_only=True)
class Rendering:
    """The prompt of one conversation, and where everything in it came from.

    Attributes:
        text: The prompt, with one placeholder per media item.
        caller_spans: The strings of the conversation in the prompt, in order of appearance.
        media: The placeholders in order.
        turns: The assistant turns in order, each including its stop token.
        turn_error: The reason why the turns are not known; then `turns` is empty.
        dropped: The paths of the strings that the template left out.
        altered: The paths of the strings that the template changed, such as by cutting out a part.
            Changes of whitespace and JSON escapes do not count.
    """

    text: str
    caller_spans: tuple[Span, ...]
    media: tuple[MediaSpan, ...] = ()
    turns: tuple[Span, ...] = ()
    turn_error: LabelError | None = None
    dropped: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
