"""Finds the control tokens around media in answers, which no model has to produce."""

from __future__ import annotations

from collections.abc import Collection

from vlmcollate.prompt.encoder import EncodedPrompt
from vlmcollate.prompt.rendering import Rendering


def media_borders(
    prompt: EncodedPrompt, tokens: Collection[str], stop_tokens: Collection[str]
) -> list[tuple[int, int]]:
    """Finds the text that the template writes around media, up to its outermost control tokens.

    Args:
        prompt: The encoded prompt.
        tokens: The control tokens of roles and media.
        stop_tokens: Those that may end a turn, which belong to no media.

    Returns:
        The first token and the last + 1 of each stretch, which includes the media.
    """
    rendering = prompt.rendering
    control = prompt.vocabulary.pattern
    found = []
    for span in rendering.media:
        left, right = _bounds(rendering, span.start, span.end)
        start, end = span.start, span.end
        before = list(control.finditer(rendering.text, left, span.start))
        for match in reversed(before):
            if match.group() not in tokens or match.group() in stop_tokens:
                break
            start = match.start()
        for match in control.finditer(rendering.text, span.end, right):
            if match.group() not in tokens or match.group() in stop_tokens:
                break
            end = match.end()
        found.append((prompt.token_at(start), prompt.token_at(end)))
    return found


def _bounds(rendering: Rendering, start: int, end: int) -> tuple[int, int]:
    """Returns where the template's own text around a placeholder begins and ends."""
    words = [*rendering.caller_spans, *rendering.media]
    left = max((s.end for s in words if s.end <= start), default=0)
    right = min((s.start for s in words if s.start >= end), default=len(rendering.text))
    for turn in rendering.turns:
        if turn.start <= start and end <= turn.end:
            return max(left, turn.start), min(right, turn.end)
    return left, right
