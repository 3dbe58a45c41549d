"""Finds what a template writes around media in answers, which no model has to produce."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vlmcollate.encode.prompt_tools import PromptTools
from vlmcollate.errors import LabelError
from vlmcollate.prompt.encoder import EncodedPrompt
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.rendering import Rendering


def media_borders(prompt: EncodedPrompt, tools: PromptTools) -> list[tuple[int, int]]:
    """Finds the text that the template writes around media: control tokens, and space behind.

    Args:
        prompt: The encoded prompt.
        tools: The tools of the prompt.

    Returns:
        The first token and the last + 1 of each stretch, which includes the media. A token that
        also holds words of the answer is none of them.
    """
    stops = tools.renderer.stop_tokens
    return prompt.tokens_apart(_stretches(prompt, tools, tools.encoder.structure.tokens, stops))


def _stretches(
    prompt: EncodedPrompt,
    tools: PromptTools,
    tokens: Collection[str],
    stop_tokens: Collection[str],
) -> list[Span]:
    rendering = prompt.rendering
    control = prompt.vocabulary.pattern
    found: list[Span] = []
    for span in rendering.media:
        left, right = _bounds(rendering, span.start, span.end)
        start, end = span.start, span.end
        before = list(control.finditer(rendering.text, left, span.start))
        for match in reversed(before):
            if match.group() not in tokens or match.group() in stop_tokens:
                break
            start = match.start()
        written = "" if prompt.conversation.is_plain_text else tools.behind_media(span.kind)
        limit = right  # behind media that follows at once, its own tokens begin
        if written and rendering.text.startswith(written, end, right):
            limit = end + len(written)
        for match in control.finditer(rendering.text, end, limit):
            if match.group() not in tokens or match.group() in stop_tokens:
                break
            end = match.end()
        if written and limit == span.end + len(written) and rendering.text[end:limit].isspace():
            end = limit
        start = max(start, found[-1].end if found else 0)  # two in a row share what is between
        found.append(Span(start, end, span.message))
    return found


def border_weights(prompt: EncodedPrompt, borders: Sequence[tuple[int, int]]) -> list[float | None]:
    """Returns the weight that each media item gives to what stands around it, or `None`.

    Args:
        prompt: The encoded prompt.
        borders: The result of `media_borders`.

    Raises:
        LabelError: Media has a weight, but the template writes nothing around it.
    """
    parts = [part for _, part in prompt.conversation.media]
    if all(part.weight is None for part in parts):
        return [None] * len(borders)
    for part, (start, end) in zip(parts, borders, strict=True):
        if part.weight and (prompt.media_ids[start:end] >= 0).all():
            raise LabelError(
                f"has the weight {part.weight:g}, which trains what the chat template writes "
                "around media in an answer, but it writes nothing there; remove the weight",
                where=part.where,
            )
    return [part.weight for part in parts]


def _bounds(rendering: Rendering, start: int, end: int) -> tuple[int, int]:
    """Returns where the template's own text around a placeholder begins and ends."""
    words = [*rendering.caller_spans, *rendering.media]
    left = max((s.end for s in words if s.end <= start), default=0)
    right = min((s.start for s in words if s.start >= end), default=len(rendering.text))
    for turn in rendering.turns:
        if turn.start <= start and end <= turn.end:
            return max(left, turn.start), min(right, turn.end)
    return left, right
