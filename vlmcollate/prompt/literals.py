"""Strings for which a chat template tests, such as `</think>` or the name of a tool."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import reduce

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.prompt.marks import map_strings
from vlmcollate.prompt.template_syntax import constants_of, literals_of, tested_literals

Render = Callable[..., str]

_BREAK = "\U0010fffd"
"""A private-use character that no template tests for."""


def unmarked_literals(
    conversation: Conversation, template: str
) -> Iterator[re.Pattern[str] | None]:
    """Yields patterns of what may stay unmarked in answers, for `Marks`, the fewest first.

    Args:
        conversation: The conversation, with whose tools a template may compare the names of calls.
        template: The chat template.
    """
    yield None
    tested = tested_literals(template)
    yield tested
    names = {name for tool in conversation.tools or () if (name := _name_of(tool))}
    if names:
        longest_first = sorted(map(re.escape, names), key=len, reverse=True)
        yield re.compile("|".join([*longest_first, tested.pattern]))


def _name_of(tool: object) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""


def refuse_tested_literals(
    conversation: Conversation, plain: str | None, render: Render, template: str, problem: str
) -> None:
    """Refuses a message with a string for which the template tests, if that is the cause.

    Each string is broken by a character in the message; if the rest of the prompt changes as well,
    the template tests for the string.

    Args:
        conversation: The conversation.
        plain: Its prompt, or `None` if the template refuses it.
        render: Renders a conversation: `render(conversation, marks)`.
        template: The chat template.
        problem: What is wrong with the conversation.

    Raises:
        ConversationError: A message holds such a string.
    """
    for k, message in enumerate(conversation.messages):
        for literals in _candidates(message, constants_of(template), literals_of(template)):
            messages = (*conversation.messages[:k], reduce(_without, literals, message))
            messages += conversation.messages[k + 1 :]
            try:
                text = render(attrs.evolve(conversation, messages=messages), None)
            except SampleError:
                continue
            if text.replace(_BREAK, "") != plain:
                named = " and ".join(map(repr, literals))
                raise ConversationError(
                    f"{problem.rstrip('.')}: the template tests for {named}, which this text "
                    "holds; remove it from the text, or change the template",
                    where=f"messages[{k}]",
                )


def _candidates(
    message: Message, constants: Collection[str], tested: Collection[str]
) -> list[tuple[str, ...]]:
    """Returns the strings of a template that a message holds, alone or all that it tests for.

    Args:
        message: The message, whose order they have.
        constants: All strings of the template.
        tested: Those in its comparisons, calls and filters, which are first.
    """
    texts: list[str] = []

    def keep(text: str) -> str:
        texts.append(text)
        return text

    _changed(message, keep)
    whole = "\n".join(texts)
    held = sorted((c for c in constants if c in whole), key=lambda c: (whole.find(c), -len(c)))
    together = tuple(c for c in held if c in tested)
    others = ((c,) for c in held if c not in tested)
    return [*((c,) for c in together), *([together] if together[1:] else ()), *others]


def _without(message: Message, literal: str) -> Message:
    """Returns a message of which no string holds the literal."""
    return _changed(
        message, lambda text: text.replace(literal, f"{literal[:1]}{_BREAK}{literal[1:]}")
    )


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    content = tuple(
        attrs.evolve(part, text=change(part.text)) if isinstance(part, TextPart) else part
        for part in message.content
    )
    extra = map_strings(message.extra, change, str, ("type", "id"))
    return attrs.evolve(message, content=content, extra=extra)
