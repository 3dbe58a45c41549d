"""The parts of an answer in the prompt: its reasoning, its text and its tool calls."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import attrs

from vlmcollate.errors import LabelError
from vlmcollate.prompt.marks import REASONING_KEYS, Span
from vlmcollate.prompt.reasoning import ReasoningForm
from vlmcollate.prompt.rendering import CallerSpan, Rendering

EmptyReasoningPolicy = Literal["train", "mask", "drop"]
AnySpan = TypeVar("AnySpan", bound=Span)
PartKind = Literal["text", "reasoning", "reasoning_end", "tool_calls"]


class AnswerPart(NamedTuple):
    """Characters of an assistant turn that belong to one kind of part."""

    start: int
    end: int
    kind: PartKind


@attrs.frozen
class _Thought:
    """The reasoning of a turn: its opening, its words, what closes it, and whether it has words."""

    start: int
    closing: int
    end: int
    is_empty: bool


def answer_parts(rendering: Rendering, forms: Sequence[ReasoningForm]) -> Iterator[AnswerPart]:
    """Yields the parts of all assistant turns, which cover each turn without gaps.

    Text that the template writes belongs to the part behind it; behind the last words, such as the
    stop token, to the tool calls if the turn has any, otherwise to the last part.

    Args:
        rendering: The prompt, whose turns are known.
        forms: How reasoning may be written.
    """
    for turn, own, before in _turns(rendering):
        thought = _thought(rendering.text, turn, own, before, forms)
        start = turn.start
        if thought is not None:
            earlier = [s for s in own if s.key == "tool_calls" and s.end <= thought.start]
            if earlier:  # the template writes the calls before the text
                yield AnswerPart(start, thought.start, "tool_calls")
                start = thought.start
            closing = max(start, thought.closing)
            yield AnswerPart(start, closing, "reasoning")
            start = max(start, thought.end)
            yield AnswerPart(closing, start, "reasoning_end")
        yield from _behind_reasoning(start, turn.end, own)


def empty_reasoning(rendering: Rendering, forms: Sequence[ReasoningForm]) -> list[Span]:
    """Returns the blocks of reasoning without words of which a part is in an assistant turn."""
    return list(_blocks(rendering, forms, is_empty=True))


def reasoning_blocks(rendering: Rendering, forms: Sequence[ReasoningForm]) -> list[Span]:
    """Returns the blocks of reasoning in the text of assistant turns."""
    return list(_blocks(rendering, forms))


def _blocks(
    rendering: Rendering, forms: Sequence[ReasoningForm], *, is_empty: bool = False
) -> Iterator[Span]:
    """Yields blocks of reasoning, or only empty ones, each with the whitespace behind it."""
    for turn, own, before in _turns(rendering):
        if any(span.key in REASONING_KEYS for span in own):
            continue
        thought = _thought(rendering.text, turn, own, before, forms)
        if is_empty and thought is not None and not thought.is_empty:
            thought = _empty_before(rendering.text, turn, thought, before, forms)
        if thought is None or thought.end <= turn.start or is_empty > thought.is_empty:
            continue
        rest = rendering.text[thought.end : turn.end]
        end = thought.end + len(rest) - len(rest.lstrip())
        yield Span(thought.start, end, turn.message)


def without(rendering: Rendering, cuts: Sequence[Span]) -> Rendering:
    """Returns a rendering without some stretches of its text, which hold no media."""
    starts = [cut.start for cut in cuts]

    def moved(char: int) -> int:
        before = cuts[: bisect_left(starts, char)]
        return char - sum(min(cut.end, char) - cut.start for cut in before)

    pieces, last = [], 0
    for cut in cuts:
        pieces.append(rendering.text[last : cut.start])
        last = cut.end

    def shifted(spans: Sequence[AnySpan]) -> tuple[AnySpan, ...]:
        return tuple(attrs.evolve(s, start=moved(s.start), end=moved(s.end)) for s in spans)

    return attrs.evolve(
        rendering,
        text="".join([*pieces, rendering.text[last:]]),
        caller_spans=shifted(rendering.caller_spans),
        media=shifted(rendering.media),
        turns=shifted(rendering.turns),
    )


def _turns(rendering: Rendering) -> Iterator[tuple[Span, list[CallerSpan], int]]:
    """Yields each turn, its message's words inside it, and the end of the words before it."""
    spans = rendering.caller_spans
    starts = [span.start for span in spans]
    for turn in rendering.turns:
        first, behind = bisect_left(starts, turn.start), bisect_left(starts, turn.end)
        if first and spans[first - 1].end > turn.start:
            first -= 1  # the first words of the message may be a part of its prompt
        inside = (span for span in spans[first:behind] if span.message == turn.message)
        own = [attrs.evolve(span, start=max(span.start, turn.start)) for span in inside]
        yield turn, own, spans[first - 1].end if first else 0


def _thought(
    text: str, turn: Span, own: Sequence[CallerSpan], before: int, forms: Sequence[ReasoningForm]
) -> _Thought | None:
    """Returns the reasoning at the beginning of a turn, if there is any."""
    given = [span for span in own if span.key in REASONING_KEYS]
    if given:
        start = _start_of_given(text, turn, own, given[0], forms)
        return _given_thought(text, attrs.evolve(turn, start=start), own, given[-1].end, forms)
    words = next((span.start for span in own if not span.key), turn.start)
    for form in forms if words > turn.start else ():  # behind text of the template
        found = form.split(text[words : turn.end])
        if found is not None:
            return _closed(turn, words, form, *found)
    found_at_start = _at_start(text, turn, before, forms)
    if found_at_start is not None:
        return found_at_start
    whole = text[turn.start : turn.end]
    begun = turn.start + len(whole) - len(whole.lstrip())
    if any(whole.lstrip().startswith(form.opening) for form in forms):  # nothing closes it
        end = max((s.end for s in own if not s.key), default=begun)
        return _Thought(begun, end, end, is_empty=False)
    for form in forms:  # some templates write no more than the closing of an empty block
        if text.startswith(form.closing, begun):
            return _Thought(begun, begun, begun + len(form.closing), is_empty=True)
    return None


def _at_start(
    text: str, turn: Span, before: int, forms: Sequence[ReasoningForm]
) -> _Thought | None:
    """Returns reasoning that begins with the turn, or that the end of its header opens."""
    header = text[before : turn.start].rstrip()
    for form in forms:
        is_open = header.endswith(form.opening)
        start = before + len(header) - len(form.opening) if is_open else turn.start
        found = form.split(text[start : turn.end])
        if found is not None:
            return _closed(turn, start, form, *found)
    return None


def _empty_before(
    text: str, turn: Span, thought: _Thought, before: int, forms: Sequence[ReasoningForm]
) -> _Thought | None:
    """Returns the block without words that the template writes before reasoning in a text."""
    until = attrs.evolve(turn, end=max(turn.start, thought.start))
    found = _at_start(text, until, before, forms)
    return found if found is not None and found.is_empty else None


def has_reasoning_behind(rendering: Rendering, block: Span, forms: Sequence[ReasoningForm]) -> bool:
    """Returns whether reasoning with words follows a block without any in its turn."""
    end = max(turn.end for turn in rendering.turns if turn.message == block.message)
    found = (form.split(rendering.text[block.end : end]) for form in forms)
    return any(split is not None and split[0].strip() for split in found)


def _closed(turn: Span, start: int, form: ReasoningForm, inside: str, rest: str) -> _Thought:
    """Returns reasoning in the text of a turn.

    Args:
        turn: The turn.
        start: The start of what opens the reasoning.
        form: What opens and closes it.
        inside: The reasoning.
        rest: The text of the turn behind what closes it.
    """
    closing = turn.end - len(rest) - len(form.closing)
    return _Thought(start, closing, closing + len(form.closing), not inside.strip())


def _start_of_given(
    text: str, turn: Span, own: Sequence[CallerSpan], words: Span, forms: Sequence[ReasoningForm]
) -> int:
    """Returns the start of the reasoning of a key, before which the template may write calls."""
    calls = [span.end for span in own if span.key == "tool_calls" and span.end <= words.start]
    if not calls:
        return turn.start
    opened = max(text.rfind(form.opening, calls[-1], words.start) for form in forms)
    return opened if opened >= 0 else words.start


def _given_thought(
    text: str, turn: Span, own: Sequence[CallerSpan], end: int, forms: Sequence[ReasoningForm]
) -> _Thought:
    """Returns the reasoning that a message holds under a key, and whose words have an end."""
    behind = next((span.start for span in own if span.start >= end), turn.end)
    ends = (text.find(form.closing, end, behind) for form in forms)
    at, form = max(zip(ends, forms, strict=True), key=lambda found: found[0])
    if at >= 0:
        return _Thought(turn.start, at, at + len(form.closing), is_empty=False)
    if behind < turn.end:
        raise LabelError(
            "the end of the reasoning is unknown: found "
            f"{text[end:behind]!r:.80} behind it, expected one of "
            f"{', '.join(repr(form.closing) for form in forms)}; give all "
            "parts the same weight in train_on",
            where=f"messages[{turn.message}]",
        )
    return _Thought(turn.start, behind, behind, is_empty=False)


def _behind_reasoning(start: int, end: int, own: Sequence[CallerSpan]) -> Iterator[AnswerPart]:
    """Yields the text and the tool calls of a turn behind its reasoning.

    What ends a turn with tool calls belongs to them, also behind text.
    """
    kind: PartKind | None = None
    done = start
    for span in own:
        if span.end <= done and kind is None:
            continue  # the reasoning
        other: PartKind = "tool_calls" if span.key == "tool_calls" else "text"
        if kind is not None and other != kind:
            border = done if other == "tool_calls" else span.start
            yield AnswerPart(start, border, kind)
            start = border
        kind, done = other, span.end
    ends_calls = kind != "tool_calls" and any(span.key == "tool_calls" for span in own)
    behind = max(start, done) if ends_calls else end
    yield AnswerPart(start, behind, kind or "text")
    if ends_calls:
        yield AnswerPart(behind, end, "tool_calls")
