"""Messages that are one turn, but that a dataset stores as several items."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.responses import CALL, REASONING

CALL_MESSAGE = "call message"
"""The kind of a message whose role says that its content is calls."""
_CALLS = frozenset({CALL, CALL_MESSAGE})


def joined(
    messages: Sequence[Message], kinds: Sequence[str], places: Sequence[str]
) -> tuple[Message, ...]:
    """Joins calls in a row, and reasoning with what it precedes.

    Args:
        messages: The messages.
        kinds: For each, `CALL_MESSAGE`, the type of an item without a role, or an empty string.
        places: The path of each.

    Returns:
        The messages, one for each turn.

    Raises:
        ConversationError: Reasoning precedes no answer, or one that holds its own.
    """
    found: list[Message] = []
    last, thought = "", None
    for message, kind, place in zip(messages, kinds, places, strict=True):
        if thought is not None:
            found[-1] = _with_reasoning(message, kind, found[-1], thought)
        elif _continues(message, kind, last) and message.weight == found[-1].weight:
            found[-1] = _with_calls(found[-1], message)
        else:
            found.append(message)
        thought = place if kind == REASONING else None
        last = kind or ("answer" if message.is_assistant and not message.is_prefix else "")
    if thought is not None:
        raise _alone(thought)
    return tuple(found)


def _continues(message: Message, kind: str, last: str) -> bool:
    """Returns whether a call belongs to the turn of the message before it."""
    if kind not in _CALLS or message.extra.keys() != {"tool_calls"}:
        return False  # one turn cannot have further fields twice
    return last in _CALLS or (kind == CALL and last == "answer")


def _with_calls(turn: Message, message: Message) -> Message:
    calls = [*turn.extra.get("tool_calls", []), *message.extra["tool_calls"]]
    return attrs.evolve(turn, extra={**turn.extra, "tool_calls": calls})


def _with_reasoning(message: Message, kind: str, reasoning: Message, place: str) -> Message:
    if not message.is_assistant or message.is_prefix:
        raise _alone(place)
    if not reasoning.extra:
        return message  # its text was not published
    if kind == REASONING and message.extra:
        texts = [m.extra["reasoning_content"] for m in (reasoning, message)]
        return attrs.evolve(message, extra={"reasoning_content": "\n".join(texts)})
    if "reasoning_content" in message.extra:
        raise ConversationError("its answer holds reasoning as well; keep one", where=place)
    return attrs.evolve(message, extra={**reasoning.extra, **message.extra})


def _alone(place: str) -> ConversationError:
    return ConversationError(
        "reasoning has to precede an answer or a call; move it there, or remove it", where=place
    )
