"""Reads off a chat template what ends the turns of the assistant."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import attrs

from vlmcollate.conversation import Message
from vlmcollate.errors import SampleError
from vlmcollate.formats import read_example
from vlmcollate.tokens.vocabulary import Vocabulary

Render = Callable[..., str]

_ASK, _ANSWER, _AGAIN, _LAST = (
    {"role": role, "content": word}
    for role, word in (
        ("user", "wombat"),
        ("assistant", "numbat"),
        ("user", "bilby"),
        ("assistant", "potoroo"),
    )
)
_TOOL = {"role": "tool", "name": "f", "tool_call_id": "call00000", "content": "dunnart"}
_CALLS: tuple[dict[str, Any], ...] = tuple(
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": given}}
        ],
    }
    for given in ({"a": "kowari"}, '{"a": "kowari"}')  # some templates take one, some the other
)


@attrs.frozen(kw_only=True)
class TurnEnds:
    """What a chat template writes behind answers.

    Attributes:
        tokens: The control tokens that end a turn, in the middle and at the end of a chat.
        calls: Those of them that end a turn of tool calls and no answer.
        last: The token that only the next turn's beginning writes, which therefore has to be
            written behind the last answer; empty if the template ends that one.
        last_call: The same for a last turn of tool calls, which the beginning of a tool's result
            ends; empty if it is that of answers.
        is_known: Whether the template renders a chat of two answers.
        asks_always: Whether the template writes a generation prompt that was not asked for.
    """

    tokens: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    last: str = ""
    last_call: str = ""
    is_known: bool = False
    asks_always: bool = False

    @property
    def are_open(self) -> bool:
        """Whether no control token ends an answer."""
        return self.is_known and not self.tokens

    def stand_for_each_other(self, one: str, other: str) -> bool:
        """Returns whether either token may end the same turn, such as one that ends a chat."""
        return one == other or (other in self.tokens and not {one, other} & {*self.calls})

    def behind(self, message: Message, end: str, stops: Collection[str]) -> str:
        """Returns the text to write behind the last message of a chat.

        Args:
            message: The message, whose end the template does not write.
            end: The text that ends answers.
            stops: The tokens that may end a turn.
        """
        if not message.is_assistant:
            return ""
        return (
            self.last_call if message.extra.get("tool_calls") and self.last_call in stops else end
        )


def read_turn_ends(render: Render, vocabulary: Vocabulary) -> TurnEnds:
    """Reads what a template writes behind answers, from a few short chats.

    Args:
        render: Renders a conversation: `render(conversation, marks, upto=None)`.
        vocabulary: The tokenizer's tokens.
    """
    behind = _Behind(render, vocabulary)
    middle = behind("numbat", "bilby", _ASK, _ANSWER, _AGAIN, _LAST)
    end = behind("potoroo", "", _ASK, _ANSWER, _AGAIN, _LAST)
    if middle is None or end is None:
        return TurnEnds()
    before_prompt = behind.before_prompt(middle, end)
    if before_prompt.asks_always or behind.has_prompt(end):
        return before_prompt
    same = agreement(middle, end)
    # what stands both in the middle and at the end belongs to the turn
    answers = [end[same - 1]] if same else [*middle[:1], *end[:1]]
    calls, marker = behind.of_calls(answers, is_closed=bool(end)) if answers else ([], [])
    return TurnEnds(
        tokens=tuple(dict.fromkeys([*answers, *calls])),
        calls=tuple(token for token in calls if token not in answers),
        last=middle[0] if middle and not end else "",
        last_call="".join(marker),
        is_known=True,
    )


def agreement(a: list[str], b: list[str]) -> int:
    """Returns the length of the common beginning of two lists."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b[: len(a)]))


@attrs.frozen
class _Behind:
    """Reads the control tokens behind a word of a chat."""

    render: Render
    vocabulary: Vocabulary

    def __call__(self, word: str, until: str, *chat: dict[str, Any]) -> list[str] | None:
        """Returns the tokens from a word to another or the end, or `None` if one is missing."""
        try:
            text = self.render(read_example(list(chat)), None)
        except SampleError:
            return None
        _, found, rest = text.rpartition(word)
        between, behind, _ = rest.partition(until) if until else (rest, "end", "")
        return self.vocabulary.pattern.findall(between) if found and behind else None

    def before_question(self) -> list[str]:
        """Returns the tokens before a question that opens a chat."""
        text = self.render(read_example([_ASK]), None)
        return self.vocabulary.pattern.findall(text.partition("wombat")[0])

    def before_prompt(self, middle: list[str], end: list[str]) -> TurnEnds:
        """Returns what ends the turns of a template that always writes a generation prompt.

        Args:
            middle: The tokens between an answer and the next question.
            end: The tokens behind the last answer of a chat.
        """
        same = agreement(middle, end)
        rest = end[same:]  # of the prompt, which no other role's header continues with
        if not rest and self.has_prompt(end):
            return self._before_header(end)
        prompt = self("wombat", "", _ASK) if rest else None
        answered = self("wombat", "numbat", _ASK, _ANSWER) if rest else None
        if not prompt or not answered or prompt[-len(rest) :] != rest:
            return TurnEnds()
        if agreement(prompt, answered) <= len(prompt) - len(rest):
            return TurnEnds()
        shared = agreement(prompt[::-1], end[::-1])
        # the first token of the prompt may be that which ends the turns of every role, unless a
        # chat opens with it, perhaps behind a bos token
        is_end = shared == len(prompt) and prompt[0] not in self.before_question()[:2]
        closing = end[: min(same, len(end) - shared + is_end)]
        return TurnEnds(tokens=tuple(closing[-1:]), is_known=True, asks_always=bool(closing))

    def _before_header(self, end: list[str]) -> TurnEnds:
        """Returns what ends turns before a header that is that of every role.

        Args:
            end: The tokens behind the last answer of a chat, with those of a generation prompt.
        """
        first = self.before_question()
        # all messages have a header alike, the first of the chat perhaps behind a bos token
        firsts = first, first[1:]
        sizes = range(len(end), 0, -1)
        size = next((n for n in sizes if any(f[:n] == end[-n:] for f in firsts)), 0)
        closing = end[: len(end) - size]
        return TurnEnds(tokens=tuple(closing[-1:]), is_known=True, asks_always=bool(closing))

    def has_prompt(self, end: list[str]) -> bool:
        """Returns whether the template writes a generation prompt that was not asked for.

        Then the tokens at the end of a chat do not all belong to its last turn.

        Args:
            end: The tokens behind the last answer of a chat.
        """
        try:
            (before, _, asked), (_, _, unasked), (_, _, answered) = (
                self.render(read_example(list(chat)), None, upto=upto).rpartition("wombat")
                for chat, upto in (((_ASK,), 1), ((_ASK,), None), ((_ASK, _ANSWER), None))
            )
        except SampleError:
            return False
        if asked != unasked:
            return False
        prompt = self.vocabulary.pattern.findall(asked)
        opened = {*self.vocabulary.pattern.findall(before)}
        if opened.isdisjoint(prompt) and not self.vocabulary.pattern.split(asked)[-1].strip():
            return False  # it only ends the question
        shared = agreement(prompt[::-1], end[::-1])
        header = answered.partition("numbat")[0]
        # one shared token may be that which ends the turns of every role
        return shared > 1 or (shared == 1 and asked.rstrip() == header.rstrip())

    def of_calls(self, answers: list[str], *, is_closed: bool) -> tuple[list[str], list[str]]:
        """Returns the tokens that end a turn of calls otherwise than answers, and any markers.

        The markers are those of the tool, which only its result writes.

        Args:
            answers: The tokens that end answers.
            is_closed: Whether one of them ends the last answer of a chat.
        """
        for call in _CALLS:
            end = self("kowari", "", _ASK, call)
            if end is None:
                continue
            middle = self("kowari", "dunnart", _ASK, call, _TOOL, _LAST)
            if middle is None:
                continue
            if not set(answers).isdisjoint(middle):
                return [], []
            if is_closed:
                return end[-1:], []
            same = agreement(middle, end)
            marker = middle[same : same + 1]
            return marker or end[-1:], marker
        return [], []
