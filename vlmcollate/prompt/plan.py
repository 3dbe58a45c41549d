"""Renders conversations that differ only in their words without tracing each one.

The trace of one conversation shows the text between its strings. For another conversation of the
same shape, its own strings are put in the same places, and the result must equal its prompt.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.prompt.marks import MarkedText, Place, Span
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.rendering import CallerSpan, MediaSpan, Rendering
from vlmcollate.prompt.template_syntax import quoted_strings, tested_literals
from vlmcollate.prompt.turn_headers import unwritten


@attrs.frozen(eq=False)
class RenderingPlan:
    """Renders conversations that differ from a traced one only in their words.

    A position is a slot and the number of characters after its end; slot 0 is the beginning of the
    prompt.

    Attributes:
        pieces: The text of the template before, between and behind the words.
        places: The place of each of the words in the conversation.
        media: The media, each with the position of its placeholder's start and end.
        turns: The message of each turn, and the positions of its start and end.
        dropped: The paths of the strings that the template omits.
        notes: What is unusual about the turns.
        unwritten: What generation prompts end with and the template does not write before a turn.
            A turn whose words begin with that begins behind it.
    """

    pieces: tuple[str, ...]
    places: tuple[Place, ...]
    media: tuple[tuple[MediaSpan, Any, Any], ...]
    turns: tuple[tuple[int, Any, Any], ...]
    dropped: tuple[str, ...]
    notes: tuple[TurnNote, ...]
    unwritten: tuple[str, ...]

    @classmethod
    def of(
        cls, trace: MarkedText, rendering: Rendering, headers: Iterable[str]
    ) -> RenderingPlan | None:
        """Makes the plan of one traced rendering.

        Args:
            trace: The marked text.
            rendering: What was found in it.
            headers: What stands between the words before turns and the end of their prompts.

        Returns:
            The plan, or `None` if a turn begins or ends inside its words.
        """
        ends = [0, *(slot.end for slot in trace.slots)]
        starts = [*(slot.start for slot in trace.slots), len(trace.text)]
        edges = (edge for turn in rendering.turns for edge in (turn.start, turn.end))
        if any(edge < ends[bisect_left(starts, edge)] for edge in edges):
            return None

        def relative(char: int) -> tuple[int, int]:
            slot = bisect_right(ends, char) - 1
            return slot, char - ends[slot]

        return cls(
            pieces=tuple(trace.text[a:b] for a, b in zip(ends, starts, strict=True)),
            places=tuple(trace.marks.places[slot.number] for slot in trace.slots),
            media=tuple((m, relative(m.start), relative(m.end)) for m in rendering.media),
            turns=tuple((t.message, relative(t.start), relative(t.end)) for t in rendering.turns),
            dropped=rendering.dropped,
            notes=rendering.notes,
            unwritten=tuple({*_unwritten(trace, rendering, headers)}),
        )

    def fill(self, conversation: Conversation, plain: str) -> Rendering | None:
        """Returns a conversation's rendering, or `None` if its prompt is different."""
        texts = [self.pieces[0]]
        ends = [0]
        given = []
        at = len(self.pieces[0])
        for place, piece in zip(self.places, self.pieces[1:], strict=True):
            core = place.core
            if place.part is not None:
                part = conversation.messages[place.message].content[place.part]
                core = part.text.strip() if isinstance(part, TextPart) else ""
            if self.unwritten and core.startswith(self.unwritten):
                return None
            texts += [core, piece]
            given.append(CallerSpan(at, at + len(core), place.message, place.part, place.key))
            ends.append(at + len(core))
            at += len(core) + len(piece)
        if "".join(texts) != plain:
            return None
        return Rendering(
            text=plain,
            caller_spans=tuple(given),
            media=tuple(
                MediaSpan(ends[i] + a, ends[j] + b, span.message, span.kind)
                for span, (i, a), (j, b) in self.media
            ),
            turns=tuple(Span(ends[i] + a, ends[j] + b, k) for k, (i, a), (j, b) in self.turns),
            dropped=self.dropped,
            notes=self.notes,
        )


def _unwritten(trace: MarkedText, rendering: Rendering, headers: Iterable[str]) -> Iterator[str]:
    """Yields the ends of headers that the template does not write before the words of turns."""
    known = {header.lstrip() for header in headers}
    answers = {turn.message for turn in rendering.turns}
    end = 0
    for slot in trace.slots:
        if slot.message in answers:
            written = trace.text[end : slot.start].lstrip()
            yield from filter(None, (unwritten(header, written).strip() for header in known))
        end = slot.end


def form_of(conversation: Conversation, template: str) -> Hashable:
    """Returns all that a processor looks at before it renders a conversation with a template."""
    messages = {
        (m.role, m.is_string, *(getattr(p, "kind", "text") for p in m.content), *m.extra)
        for m in conversation.messages
    }
    return template, frozenset(messages), frozenset(conversation.template_kwargs)


def shapes_of(conversation: Conversation, template: str) -> tuple[Any, ...]:
    """Returns the messages of a conversation without their words.

    Args:
        conversation: The conversation.
        template: The chat template, whose literals in the words remain.
    """
    quoted = quoted_strings(template)
    return tuple(_shape_of(message, template, quoted) for message in conversation.messages)


def _shape_of(message: Message, template: str, quoted: Collection[str]) -> tuple[Any, ...]:
    """Returns all of a message except its words, which no template can test."""
    return (
        message.role,
        message.is_string,
        repr(message.extra),
        tuple(
            _shape_of_text(part.text, template, quoted) if isinstance(part, TextPart) else part.kind
            for part in message.content
        ),
    )


def _shape_of_text(text: str, template: str, quoted: Collection[str]) -> tuple[Any, ...]:
    core = text.strip()
    at = 0 if core == text else text.index(core)
    is_tested = any(string in core for string in quoted)
    tested = tested_literals(template).findall(core) if is_tested else ()
    return text[:at], bool(core), text[at + len(core) :], tuple(tested)
