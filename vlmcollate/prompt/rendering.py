"""A rendered prompt, and the origin of its text."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.errors import ConversationError, LabelError
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.notes import TurnNote


@attrs.frozen
class CallerSpan(Span):
    """A string of the conversation.

    Attributes:
        part: The index of the text part in its message, or `None`.
        key: The key of the message that holds it otherwise, such as `"tool_calls"`.
    """

    part: int | None = None
    key: str = ""


@attrs.frozen
class MediaSpan(Span):
    """A placeholder that the template wrote."""

    kind: MediaKind = "image"


@attrs.frozen
class UncertainTurns:
    """The turns of a prompt, of which some hold only if they do not train.

    Attributes:
        turns: All turns in order.
        messages: The messages of those that begin or end at an unknown place.
    """

    turns: tuple[Span, ...]
    messages: frozenset[int]


@attrs.frozen(kw_only=True)
class Rendering:
    """The prompt of one conversation, and the origin of its text.

    Attributes:
        text: The prompt, with one placeholder per media item.
        caller_spans: The strings of the conversation in the prompt, in order of appearance.
        media: The placeholders in order.
        turns: The assistant turns in order, each including its stop token.
        turn_error: The reason why the turns are unknown; `turns` is then empty.
        dropped: The paths of the strings that the template omitted.
        altered: The paths of the strings that the template changed, for example by removing a part.
            Changes to whitespace and JSON escapes do not count.
        notes: What is unusual about the turns.
        uncertain: The turns that hold if those with an error do not train, or `None`.
    """

    text: str
    caller_spans: tuple[CallerSpan, ...]
    media: tuple[MediaSpan, ...] = ()
    turns: tuple[Span, ...] = ()
    turn_error: LabelError | None = None
    dropped: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    notes: tuple[TurnNote, ...] = ()
    uncertain: UncertainTurns | None = None


def without_end(rendering: Rendering, conversation: Conversation) -> Rendering:
    """Returns the rendering up to the last text of a message that the model continues."""
    last = len(conversation.messages) - 1
    ends = [span.end for span in rendering.caller_spans if span.message == last]
    if not ends:
        raise ConversationError(
            "the last message is a prefix, but the prompt holds none of its text; write its text, "
            "or remove 'prefix'",
            where=f"messages[{last}]",
        )
    if any(span.message == last and span.end > ends[-1] for span in rendering.media):
        raise ConversationError(
            "the last message is a prefix that ends with media; end it with text",
            where=f"messages[{last}]",
        )
    text = conversation.messages[last].text
    space = text[len(text.rstrip()) :]
    end = ends[-1] + (len(space) if rendering.text.startswith(space, ends[-1]) else 0)
    return attrs.evolve(rendering, text=rendering.text[:end])
