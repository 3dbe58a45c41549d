"""Renders the prompt from which a model generates an answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.marks import Marks, Span
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.template_syntax import tested_literals
from vlmcollate.prompt.templates import unseparable
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
    earlier = renderer(conversation)
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


def after_an_answer(messages: Sequence[Any], *, writes_calls: bool) -> list[Any]:
    """Returns a conversation in which messages follow an answer.

    Args:
        messages: The messages.
        writes_calls: Whether the chat template writes tool calls. An answer before the results of
            tools then calls them, as many templates demand.
    """
    calls: list[dict[str, Any]] = [
        {
            "type": "function",
            "id": result.get("tool_call_id") or "call00000",
            "function": {"name": result.get("name") or "f", "arguments": {}},
        }
        for result in (_results(messages) if writes_calls else ())
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": "" if calls else "b"}
    if calls:
        answer["tool_calls"] = calls
    return [{"role": "user", "content": "a"}, answer, *messages]


def _results(messages: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Returns the results of tools that messages begin with."""
    found: list[Mapping[str, Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("tool", "function"):
            break
        found.append(message)
    return found


def behind_the_answer(
    rendering: Rendering,
    messages: Sequence[Any],
    stop_tokens: Sequence[str],
    ended_by: str,
    ends: Collection[str],
) -> tuple[Rendering, str]:
    """Returns what a template writes behind the answer of `after_an_answer`.

    Args:
        rendering: The rendering of all messages.
        messages: Those behind the answer.
        stop_tokens: The tokens that may end the answer.
        ended_by: The stop token that was sampled, or an empty string.
        ends: The tokens that the template writes behind answers, one for the other.

    Returns:
        The part of the rendering, and the token at its beginning that was sampled already, or an
        empty string.

    Raises:
        ConversationError: The template writes none of the messages, ends the answer with another
            role's marker than was sampled, or repeats a call's name that no result has.
    """
    spans = [*rendering.caller_spans, *rendering.media]
    following = [span.start for span in spans if span.message > 1]
    answered = [span.end for span in spans if span.message == 1]
    start, until = min(answered, default=0), min(following, default=-1)
    if not answered or until < start:
        raise ConversationError(
            "the chat template writes none of these messages behind an answer; render the whole "
            "conversation with `prompt`"
        )
    found = {rendering.text.find(token, start, until): token for token in stop_tokens if token}
    found.pop(-1, None)
    start = min(found, default=start)
    stop = found.get(start, "")
    if ended_by and stop and stop != ended_by and stop not in ends:
        raise ConversationError(
            f"the answer was ended by {ended_by!r}, but the template writes {stop!r} between an "
            "answer and these messages; pass messages of the role that the model gave the turn to"
        )
    if any(not result.get("name") for result in _results(messages)) and any(
        span.message == 1 and span.start >= start for span in rendering.caller_spans
    ):
        raise ConversationError(
            "the chat template writes the name of the call with a tool's result; give the result "
            "the key 'name'"
        )
    tail = attrs.evolve(
        rendering,
        text=rendering.text[start:],
        caller_spans=_moved(rendering.caller_spans, start),
        media=_moved(rendering.media, start),
        turns=(),
        dropped=_behind(rendering.dropped),
        altered=_behind(rendering.altered),
    )
    return tail, stop if ended_by else ""


def _behind(paths: Sequence[str]) -> tuple[str, ...]:
    """Returns the paths in the messages behind the answer, counted from the first of them."""
    return tuple(path for path in map(shifted_path, paths) if path is not None)


def shifted_path(path: str) -> str | None:
    """Returns a path in the messages behind `after_an_answer`'s, or `None` if it is in those."""
    found = re.match(r"messages\[(\d+)\]", path)
    if found is None:
        return path
    number = int(found[1]) - 2
    return None if number < 0 else f"messages[{number}]{path[found.end() :]}"


def _moved(spans: Sequence[S], start: int) -> tuple[S, ...]:
    return tuple(
        attrs.evolve(span, start=span.start - start, end=span.end - start)
        for span in spans
        if span.start >= start
    )
