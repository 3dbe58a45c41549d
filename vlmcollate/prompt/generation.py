"""Renders the prompt from which a model generates an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.marks import Marks, Span
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.template_syntax import tested_literals
from vlmcollate.prompt.templates import chat_template_of, unseparable
from vlmcollate.tokens.vocabulary import Vocabulary

S = TypeVar("S", bound=Span)


def rendered_prompt(renderer: ChatRenderer, conversation: Conversation) -> Rendering:
    """Renders the messages of a conversation with a generation prompt.

    Args:
        renderer: The renderer of conversations.
        conversation: The messages before the answer, the last of which is no answer.

    Raises:
        ConversationError: The template refuses the conversation, or its own text depends on the
            conversation's strings.
        MediaMismatchError: The template wrote more or fewer placeholders than there are media.
    """
    template, upto = chat_template_of(renderer.processor), len(conversation.messages)
    vocabulary = Vocabulary.known(renderer.processor.tokenizer)
    plain = renderer.render(conversation, None, upto=upto, template=template)
    for literals in (None, tested_literals(template)):
        marks = Marks(conversation, vocabulary.pattern, literals)
        trace = marks.read(renderer.render(conversation, marks, upto=upto, template=template))
        if trace is not None and trace.text == plain:
            return _with_earlier_turns(renderer.placed(conversation, trace), renderer, conversation)
    raise ConversationError(unseparable(plain))


def _with_earlier_turns(
    prompt: Rendering, renderer: ChatRenderer, conversation: Conversation
) -> Rendering:
    """Returns a prompt with its earlier answers as turns, whose tokens begin where they train."""
    if not any(message.is_assistant for message in conversation.messages):
        return prompt
    try:
        earlier = renderer(conversation)
    except ConversationError:  # some templates write this chat with a generation prompt alone
        return prompt
    same = (turn for turn in earlier.turns if prompt.text.startswith(earlier.text[: turn.end]))
    return attrs.evolve(prompt, turns=tuple(same))


def before_the_answer(rendering: Rendering) -> Rendering:
    """Returns the part of a rendering up to its last turn, without turns.

    Raises:
        LabelError: The turn cannot be placed.
    """
    if rendering.turn_error is not None:
        raise rendering.turn_error
    end = rendering.turns[-1].start
    return attrs.evolve(
        rendering,
        text=rendering.text[:end],
        caller_spans=tuple(span for span in rendering.caller_spans if span.end <= end),
        media=tuple(span for span in rendering.media if span.end <= end),
        turns=(),
        notes=(),
    )


def after_an_answer(messages: Sequence[Any]) -> list[Any]:
    """Returns a conversation in which messages follow an answer, with calls for their results."""
    results: list[Mapping[str, Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("tool", "function"):
            break
        results.append(message)
    answer: dict[str, Any] = {"role": "assistant", "content": "b"}
    calls: list[dict[str, Any]] = [
        {
            "type": "function",
            "id": result.get("tool_call_id") or "call00000",
            "function": {"name": result.get("name") or "f", "arguments": {}},
        }
        for result in results
    ]
    if calls:
        answer["tool_calls"] = calls
    return [{"role": "user", "content": "a"}, answer, *messages]


def behind_the_answer(
    rendering: Rendering, stop_tokens: Sequence[str], ended_by: str
) -> tuple[Rendering, bool]:
    """Returns what a template writes behind the answer of `after_an_answer`.

    Args:
        rendering: The rendering of all messages.
        stop_tokens: The tokens that may end the answer.
        ended_by: The stop token that was sampled, or an empty string.

    Returns:
        The part of the rendering, and whether its first token is the end of the answer, which was
        sampled already.
    """
    start = max(span.end for span in rendering.caller_spans if span.message == 1)
    following = [span.start for span in rendering.caller_spans if span.message > 1]
    until = min((place for place in following if place >= start), default=len(rendering.text))
    found = [rendering.text.find(token, start, until) for token in stop_tokens if token]
    ends = [place for place in found if place >= 0]
    is_ended = bool(ended_by and ends)
    if is_ended:
        start = min(ends)
    return (
        attrs.evolve(
            rendering,
            text=rendering.text[start:],
            caller_spans=_moved(rendering.caller_spans, start),
            media=_moved(rendering.media, start),
            turns=(),
            dropped=(),
            altered=(),
        ),
        is_ended,
    )


def _moved(spans: Sequence[S], start: int) -> tuple[S, ...]:
    return tuple(
        attrs.evolve(span, start=span.start - start, end=span.end - start)
        for span in spans
        if span.start >= start
    )
