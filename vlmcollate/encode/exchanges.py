"""The exchanges of a conversation, of which `on_overlong="drop_turns"` drops the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

import attrs

from vlmcollate.conversation import Conversation, Message
from vlmcollate.errors import SampleError
from vlmcollate.formats.roles import RESULTS

_INSTRUCTIONS = frozenset({"system", "developer"})
C = TypeVar("C")
R = TypeVar("R")


def without_oldest(messages: Sequence[Message]) -> list[tuple[int, ...]]:
    """Returns the indices of the messages that are left, for each number of dropped exchanges.

    An exchange is a question with all that follows up to the next question. The messages between
    two answers are one question, unless they hold results of calls, which belong to the exchange of
    the calls. System and developer messages are never dropped, nor is what precedes the first
    question.

    Args:
        messages: The messages of a conversation.

    Returns:
        The indices without the oldest exchange, without the two oldest, and so on to the last one.
    """
    starts = list(map(min, _questions(messages)))
    if not starts:
        return []
    first = next(i for i, message in enumerate(messages) if message.role == "user")
    first = max(first, starts[0])
    return [
        tuple(
            i
            for i, message in enumerate(messages)
            if i < first or i >= start or message.role in _INSTRUCTIONS
        )
        for start in starts[1:]
    ]


def _questions(messages: Sequence[Message]) -> Iterable[list[int]]:
    """Yields the indices of the messages of each question."""
    for is_answer, run in groupby(range(len(messages)), lambda i: messages[i].is_assistant):
        places = list(run)
        roles = {messages[i].role for i in places}
        calls = places[0] > 0 and messages[places[0] - 1].extra.get("tool_calls")
        if not is_answer and not calls and "user" in roles and not roles & RESULTS:
            yield places


def with_messages(conversation: Conversation, kept: Iterable[int]) -> Conversation:
    """Returns a conversation with some of its messages."""
    messages = tuple(conversation.messages[i] for i in kept)
    return attrs.evolve(conversation, messages=messages)


def first_that_fits(
    choices: Sequence[C], attempt: Callable[[C], R | None], media_of: Callable[[C], object]
) -> R | None:
    """Returns the result of the first choice that fits, without an attempt at each.

    Of choices with the same media, a later one has fewer messages and is not longer, so they are
    searched by halves. Choices with other media are searched one group after another, since a
    processor may tile fewer images into more tokens.

    Args:
        choices: The choices, each of which holds no message that an earlier one lacks.
        attempt: A function that returns the result of a choice, or `None` if it is too long.
        media_of: A function that returns a value that is equal for choices with the same media.

    Returns:
        The result, or `None` if none fits.
    """
    groups = (list(group) for _, group in groupby(choices, media_of))
    return next((r for r in (_search(group, attempt) for group in groups) if r is not None), None)


def _search(choices: Sequence[C], attempt: Callable[[C], R | None]) -> R | None:
    """Returns the result of the first choice that fits; all behind it fit, too.

    A choice that fails is no error if an earlier one fits, so those before it are tried in order.
    """
    best: R | None = None
    low, high, step = 0, len(choices), 1
    while low < high:
        at = min(low + step, high) - 1 if best is None else (low + high) // 2
        try:
            found = attempt(choices[at])
        except SampleError:
            results = map(attempt, choices[low:high])
            return next((r for r in results if r is not None), best)
        if found is None:
            low, step = at + 1, step * 2
        else:
            best, high = found, at
    return best
