"""Strings for which a chat template tests, such as `</think>` or the name of a tool."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache, reduce

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.prompt.marks import MarkedText, Marks, map_strings
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
                raise _tested(problem, literals, k)


def unbranched(trace: MarkedText, render: Render, template: str) -> MarkedText:
    """Returns a marked prompt, unless markup in a question changes what stands around it.

    Words such as `/no_think`, which people write on purpose, may change it.

    Args:
        trace: The marked prompt.
        render: Renders its conversation, or another one, in the same way: `render(other, marks)`.
        template: The chat template.

    Raises:
        ConversationError: The template tests for markup that a question holds, such as
            `<tool_response>` or a control token.
    """
    conversation, control = trace.marks.conversation, trace.marks.control
    markup = {
        k: _held(message, _markup_of(template, control), str.casefold)
        for k, message in enumerate(conversation.messages)
        if message.role == "user" and _may_hold_markup(message, template, control)
    }

    def is_same(held: Mapping[int, Sequence[str]]) -> bool:
        """Returns whether the prompt is the same around messages without some strings."""
        messages = list(conversation.messages)
        for k, literals in held.items():
            messages[k] = reduce(_without, literals, messages[k])
        other = attrs.evolve(conversation, messages=tuple(messages))
        marks = Marks(other, control, trace.marks.literals)
        try:
            found = marks.read(render(other, marks))
        except SampleError:
            return False
        return found is not None and found.own_text == trace.own_text

    held = {k: literals for k, literals in markup.items() if literals}
    if not held or is_same(held):
        return trace
    alone = ((k, [literal]) for k, literals in held.items() for literal in literals)
    found = next((one for one in alone if not is_same(dict([one]))), None)
    k, literals = found or next(iter(held.items()))
    problem = "the chat template's own text depends on the words of a message"
    raise _tested(problem, literals, k)


_MARKUP = re.compile(r"<[^<>\s]+>|\[/?[A-Z][A-Z_]*\]")


def _may_hold_markup(message: Message, template: str, control: re.Pattern[str]) -> bool:
    """Returns whether a question holds markup that the source of a template holds, too."""
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    if not any("<" in text or "[" in text or control.search(text) for text in texts):
        return False
    found = {m.group() for text in texts for p in (_MARKUP, control) for m in p.finditer(text)}
    source = template.casefold() if found else ""
    return any(markup.casefold() in source for markup in found)


@lru_cache(maxsize=64)
def _markup_of(template: str, control: re.Pattern[str]) -> frozenset[str]:
    """Returns the strings in a template's expressions that hold markup or a control token."""
    return frozenset(c for c in constants_of(template) if _MARKUP.search(c) or control.search(c))


def _tested(problem: str, literals: Collection[str], k: int) -> ConversationError:
    named = " and ".join(map(repr, literals))
    return ConversationError(
        f"{problem.rstrip('.')}: the template tests for {named}, which this text holds; remove it "
        "from the text, or change the template",
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
    held = _held(message, constants)
    together = tuple(c for c in held if c in tested)
    others = ((c,) for c in held if c not in tested)
    return [*((c,) for c in together), *([together] if together[1:] else ()), *others]


def _held(
    message: Message, constants: Collection[str], fold: Callable[[str], str] = str
) -> list[str]:
    """Returns the strings of a template that a message holds, in the order of the message."""
    texts: list[str] = []

    def keep(text: str) -> str:
        texts.append(text)
        return text

    _changed(message, keep)
    whole = fold("\n".join(texts))
    held = (constant for constant in constants if fold(constant) in whole)
    return sorted(held, key=lambda constant: (whole.find(fold(constant)), -len(constant)))


def _without(message: Message, literal: str) -> Message:
    """Returns a message of which no string holds the literal, in whatever case."""
    pattern = re.compile(re.escape(literal), re.IGNORECASE)

    def broken(match: re.Match[str]) -> str:
        held = match.group()
        if len(held) == 1:  # the template may test for it at the beginning or at the end
            return f"{_BREAK}{held}{_BREAK}"
        return f"{held[:1]}{_BREAK}{held[1:]}"

    return _changed(message, lambda text: pattern.sub(broken, text))


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    content = tuple(
        attrs.evolve(part, text=change(part.text)) if isinstance(part, TextPart) else part
        for part in message.content
    )
    extra = map_strings(message.extra, change, str, ("type", "id"))
    return attrs.evolve(message, content=content, extra=extra)
