"""Renders the prompt from which a model generates an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.literals import unbranched, unmarked_literals
from vlmcollate.prompt.marks import Marks, Span
from vlmcollate.prompt.rendering import Rendering
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
    for literals in unmarked_literals(conversation, template):
        marks = Marks(conversation, vocabulary.pattern, literals)
        trace = marks.read(renderer.render(conversation, marks, upto=upto, template=template))
        if trace is not None and trace.text == plain:
            unbranched(trace, partial(renderer.render, upto=upto, template=template), template)
            return _with_earlier_turns(renderer.placed(conversation, trace), renderer, conversation)
    raise unseparable(conversation, plain, template)


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
    """Returns the part of a rendering up to its last turn, with the turns before it.

    Raises:
        LabelError: The turn cannot be placed.
    """
    if rendering.turn_error is not None:
        raise rendering.turn_error
    *earlier, last = rendering.turns
    end = last.start
    return attrs.evolve(
        rendering,
        text=rendering.text[:end],
        caller_spans=tuple(span for span in rendering.caller_spans if span.end <= end),
        media=tuple(span for span in rendering.media if span.end <= end),
        turns=tuple(earlier),
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


def depends_on_earlier_results(renderer: ChatRenderer) -> bool:
    """Returns whether a template writes a tool's result otherwise behind earlier results."""
    asked, *last = _one_call("call00000")
    _, *earlier = _one_call("call00001")
    try:
        texts = [
            renderer.probe(read_example(chat), None)
            for chat in ([asked, *last], [asked, *earlier, *last])
        ]
    except SampleError:
        return False
    (_, call, behind), (_, _, later) = (text.rpartition("kowari") for text in texts)
    return bool(call) and behind != later


def _one_call(identity: str) -> list[dict[str, Any]]:
    """Returns a question, a call, and its result."""
    result = {"role": "tool", "content": "dunnart", "name": "f", "tool_call_id": identity}
    asked, call, result = after_an_answer([result], writes_calls=True)
    call["tool_calls"][0]["function"]["arguments"] = {"a": "kowari"}
    return [asked, call, result]


def _results(messages: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Returns the results of tools that messages begin with."""
    found: list[Mapping[str, Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("tool", "function"):
            break
        found.append(message)
    return found


def behind_the_answer(
    rendering: Rendering, messages: Sequence[Any], ended_by: str, renderer: ChatRenderer
) -> tuple[Rendering, str]:
    """Returns what a template writes behind the answer of `after_an_answer`.

    Args:
        rendering: The rendering of all messages.
        messages: Those behind the answer.
        ended_by: The stop token that was sampled, or an empty string.
        renderer: The renderer.

    Returns:
        The part of the rendering, and the token at its beginning that was sampled already, or an
        empty string.

    Raises:
        ConversationError: The template writes none of the messages, ends the answer with another
            token than was sampled, or repeats a call's name that no result has.
    """
    start, until = _gap_behind_the_answer(rendering)
    found = [
        (at, token)
        for token in renderer.stop_tokens
        if token and (at := rendering.text.find(token, start, until)) >= 0
    ]
    start, stop = min(found, default=(start, ""))
    if ended_by:
        _check_ended_alike(ended_by, stop, renderer)
    _check_no_call_is_repeated(rendering, messages, start)
    return _tail(rendering, start), stop if ended_by else ""


def _gap_behind_the_answer(rendering: Rendering) -> tuple[int, int]:
    """Returns the place where the answer ends, and that where the next message begins."""
    spans = [*rendering.caller_spans, *rendering.media]
    end = min((span.end for span in spans if span.message == 1), default=None)
    following = min((span.start for span in spans if span.message > 1), default=-1)
    if end is None or following < end:
        raise ConversationError(
            "the chat template writes none of these messages behind an answer; render the whole "
            "conversation with `prompt`"
        )
    return end, following


def _check_ended_alike(ended_by: str, stop: str, renderer: ChatRenderer) -> None:
    """Refuses an answer that the template would end with another token than was sampled."""
    ends = renderer.turn_ends
    if renderer.last_turn_end:  # the next role's marker, which no other stands for
        is_alike = ended_by == stop
    else:
        is_alike = not stop or ends.stand_for_each_other(ended_by, stop)
    if not is_alike:
        written = repr(stop) if stop else "no stop token"
        raise ConversationError(
            f"the answer was ended by {ended_by!r}, but the template writes {written} between an "
            "answer and these messages; pass messages of the role that the model gave the turn to"
        )


def _check_no_call_is_repeated(rendering: Rendering, messages: Sequence[Any], start: int) -> None:
    """Refuses results without a name, if the template writes that of `after_an_answer`'s call."""
    if any(not result.get("name") for result in _results(messages)) and any(
        span.message == 1 and span.start >= start for span in rendering.caller_spans
    ):
        raise ConversationError(
            "the chat template writes the name of the call with a tool's result; give the result "
            "the key 'name'"
        )


def _tail(rendering: Rendering, start: int) -> Rendering:
    """Returns the part of a rendering from a place behind the answer on."""
    return attrs.evolve(
        rendering,
        text=rendering.text[start:],
        caller_spans=_moved(rendering.caller_spans, start),
        media=_moved(rendering.media, start),
        turns=(),
        dropped=_behind(rendering.dropped),
        altered=_behind(rendering.altered),
    )


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
