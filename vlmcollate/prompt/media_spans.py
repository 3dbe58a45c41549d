"""Finds the placeholders that a chat template wrote for media."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.errors import MediaMismatchError
from vlmcollate.prompt.marks import MarkedText
from vlmcollate.prompt.rendering import MediaSpan


def media_spans(
    conversation: Conversation, trace: MarkedText, placeholders: Mapping[MediaKind, str]
) -> tuple[MediaSpan, ...]:
    """Returns the places of a conversation's media in its prompt, in order.

    Args:
        conversation: The conversation.
        trace: Its rendering.
        placeholders: The text that the template writes for each kind of media.

    Raises:
        MediaMismatchError: The template wrote more or fewer placeholders than there are media.
    """
    found: list[tuple[int, int, MediaKind]] = []
    for kind, placeholder in placeholders.items():
        if placeholder not in trace.text:
            continue
        at = (m.span() for m in re.finditer(re.escape(placeholder), trace.text))
        found += [(a, b, kind) for a, b in at if not trace.is_given(a, b)]
    found.sort()
    media = list(conversation.media)
    if [kind for *_, kind in found] != [part.kind for _, part in media]:
        raise MediaMismatchError(
            f"the conversation holds {_count(p.kind for _, p in media)}, but the chat template "
            f"wrote placeholders for {_count(k for *_, k in found)}; it may ignore media in "
            "these messages, or reorder them"
        )
    return tuple(
        MediaSpan(a, b, message, kind)
        for (a, b, kind), (message, _) in zip(found, media, strict=True)
    )


def _count(kinds: Iterable[str]) -> str:
    listed = list(kinds)
    counts = [f"{listed.count(k)} {k}(s)" for k in dict.fromkeys(listed)]
    return " and ".join(counts) or "no media"
