"""The reasoning of answers: how a template writes it, and reasoning inside an answer's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.tokens.vocabulary import Vocabulary

Render = Callable[..., str]

_ASK = {"role": "user", "content": "wombat"}
TAGGED = re.compile(r"\s*[^\w\s]|\s*\S+[<\[]")
"""Text that may begin with reasoning."""
_CALL = {"name": "potoroo", "arguments": {"at": "bilby"}}
_CALLS = {"tool_calls": [{"type": "function", "id": "call00000", "function": _CALL}]}
"""Some templates write the reasoning of answers with tool calls alone."""
_TAG = r"</?[\w:|]+>|\[/?[A-Z]+\]"


@attrs.frozen
class ReasoningForm:
    """The text around the reasoning of an answer, without outer whitespace.

    Attributes:
        opening: The text before it.
        closing: The text behind it, up to its first control token or tag.
        key: The key of a message from which the template reads it, or an empty string.
        before_text: What stands between the closing and the answer's text, such as a header.
    """

    opening: str
    closing: str
    key: str = ""
    before_text: str = ""

    def split(self, text: str) -> tuple[str, str] | None:
        """Splits a text that begins with reasoning into the reasoning and the rest."""
        begun = text.lstrip()
        if not begun.startswith(self.opening):
            return None
        inside, closed, rest = begun[len(self.opening) :].partition(self.closing)
        return (inside, rest) if closed else None


PLAIN_FORM = ReasoningForm("<think>", "</think>")
"""The usual tags, which models write as text when their template knows no reasoning."""


def read_reasoning_form(render: Render, vocabulary: Vocabulary) -> ReasoningForm | None:
    """Reads how a template writes reasoning, from a short chat.

    Args:
        render: Renders a conversation: `render(conversation, marks, upto=None)`.
        vocabulary: The tokenizer's tokens.

    Returns:
        The form, or `None` if the template writes no reasoning.
    """
    mark = re.compile(f"{vocabulary.pattern.pattern}|{_TAG}")
    found = (_read_form(render, mark, key, more) for more in ({}, _CALLS) for key in REASONING_KEYS)
    return next((form for form in found if form is not None), None)


def _read_form(
    render: Render, mark: re.Pattern[str], key: str, more: Mapping[str, Any]
) -> ReasoningForm | None:
    """Reads the form from an answer with reasoning under a key, and with more keys."""
    answer = {"role": "assistant", "content": "numbat", **more}
    chat = read_example([_ASK, {**answer, key: "quokka"}])
    try:
        text, asked = render(chat, None), render(chat, None, upto=1)
        bare = render(read_example([_ASK, answer]), None) if more else ""
    except SampleError:
        return None
    before, written, rest = text.partition("quokka")
    between, *answered = re.split("numbat|potoroo", rest, maxsplit=1)
    bare = re.split("numbat|potoroo", bare.rpartition("wombat")[2])[0]
    ends = mark.search(between)
    closing = between[: ends.end() if ends else len(between)].strip()
    if not (written and answered and closing):
        return None
    before, asked = (prompt.rpartition("wombat")[2] for prompt in (before, asked))
    opening = _opening(before, asked, mark)
    if closing in bare and not (opening and opening in bare):
        return None  # it opens the tool calls
    behind = between[ends.end() :].strip() if ends and not more else ""
    return ReasoningForm(opening, closing, key, behind)


def _opening(before: str, header: str, mark: re.Pattern[str]) -> str:
    """Returns the text that opens the reasoning, which may be a part of the header."""
    if before.startswith(header) and before[len(header) :].strip():
        return before[len(header) :].strip()
    found = list(mark.finditer(before))
    return before[found[-1].start() if found else len(before) :].strip()


def move_inline_reasoning(
    conversation: Conversation, form: ReasoningForm, render: Render
) -> Conversation:
    """Moves reasoning at the beginning of answers to the key from which the template reads it.

    It moves if the prompt stays the same, or if the template would remove it from the answer, or
    refuse it there. Reasoning that the template writes in neither place stays where it is.

    Args:
        conversation: The conversation.
        form: How the template writes reasoning.
        render: Renders a conversation: `render(conversation, marks)`.
    """
    trimmed, kept = (_all_moved(conversation, form, trims=trims) for trims in (True, False))
    if not trimmed:
        return conversation
    plain = _prompt(conversation, render)
    for moved in (trimmed, kept):
        candidate = _with(conversation, moved)
        text = _prompt(candidate, render)
        if text is not None and plain is None:
            return candidate
        if text is not None and text == plain:
            return _with(conversation, _written(moved, form, text))
    text = _prompt(_with(conversation, trimmed), render)
    if plain is None or text is None:
        return conversation
    left = _written(trimmed, form, plain)
    gained = {k: m for k, m in _written(trimmed, form, text).items() if k not in left}
    return _with(conversation, gained)


def _written(moved: Mapping[int, Message], form: ReasoningForm, text: str) -> dict[int, Message]:
    """Returns the messages whose reasoning a prompt holds."""
    return {k: message for k, message in moved.items() if message.extra[form.key].strip() in text}


def _prompt(conversation: Conversation, render: Render) -> str | None:
    """Returns the prompt of a conversation, or `None` if the template refuses it."""
    try:
        return render(conversation, None)
    except ConversationError:
        return None


def _all_moved(
    conversation: Conversation, form: ReasoningForm, *, trims: bool
) -> dict[int, Message]:
    """Returns the messages with inline reasoning, changed."""
    return {
        k: found
        for k, message in enumerate(conversation.messages)
        if message.is_assistant and (found := _moved(message, form, trims=trims)) is not None
    }


def _with(conversation: Conversation, changed: Mapping[int, Message]) -> Conversation:
    messages = tuple(changed.get(k, message) for k, message in enumerate(conversation.messages))
    return attrs.evolve(conversation, messages=messages)


def _moved(message: Message, form: ReasoningForm, *, trims: bool) -> Message | None:
    """Returns a message with its inline reasoning under the form's key, if it has any.

    Args:
        message: The message.
        form: How the template writes reasoning.
        trims: Whether the newlines around the reasoning and before the text are left to the
            template.
    """
    first: Any = message.content[0] if message.content else None
    if message.is_prefix or not isinstance(first, TextPart) or first.weight is not None:
        return None
    if not {*REASONING_KEYS}.isdisjoint(message.extra):
        return None
    for written in (form, PLAIN_FORM):
        found = written.split(first.text)
        if found is not None and found[0].strip():
            inside, rest = found
            if written.before_text and rest.lstrip().startswith(written.before_text):
                rest = rest.lstrip().removeprefix(written.before_text)
            if trims:
                inside, rest = inside.strip("\n"), rest.lstrip("\n")
            return attrs.evolve(
                message,
                content=(attrs.evolve(first, text=rest), *message.content[1:]),
                extra={**message.extra, form.key: inside},
            )
    return None
