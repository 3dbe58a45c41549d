"""Lists of messages, in the spellings of OpenAI, Hugging Face, ShareGPT and LLaVA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.calls import read_calls
from vlmcollate.formats.fields import Fields, as_list, parsed
from vlmcollate.formats.parts import Thinking, read_content
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.roles import CALLS, read_role
from vlmcollate.formats.weights import SPELLINGS, pop_weight
from vlmcollate.plain_values import describe, plain, unwrap

_ROLES = ("role", "from")
_CONTENTS = ("content", "value")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_KEYS_OF_CALLS = frozenset({"tool_calls", "tools", "functions"})


def read_messages(value: object, where: str, reading: Reading) -> tuple[Message, ...]:
    """Reads a list of messages.

    Args:
        value: The list, or JSON of it; a single message counts as a list of one.
        where: Its path in the example.
        reading: What is known of the example.

    Returns:
        The messages in order.

    Raises:
        ConversationError: A message is wrong, or there is none.
    """
    items = as_list(value, where)
    if not items:
        raise ConversationError("expected at least one message, found none", where=where)
    found = tuple(_read_message(item, f"{where}[{i}]", reading) for i, item in enumerate(items))
    for i, message in enumerate(found[:-1]):
        if message.is_prefix:
            raise ConversationError(
                "only the last message may be a prefix; remove 'prefix'",
                where=f"{where}[{i}].prefix",
            )
    return found


def _read_message(value: object, where: str, reading: Reading) -> Message:
    value = parsed(unwrap(value), where, "{")
    if not isinstance(value, Mapping):
        raise ConversationError(
            'expected a message such as {"role": "user", "content": ...}, found '
            f"{describe(value)}",
            where=where,
        )
    fields = Fields(value, where)
    key = next(iter(fields.named(*_ROLES)), "role")
    given = fields.pop(key)
    is_call = isinstance(given, str) and given in CALLS
    role = "assistant" if is_call else read_role(given, f"{where}.{key}")
    spelled = fields.named(*SPELLINGS)
    weight = pop_weight(fields)
    if role != "assistant" and weight:
        raise ConversationError(
            f"only assistant messages train, found {spelled[0]!r} in a {role!r} message; remove it",
            where=fields.path(spelled[0]),
        )
    is_prefix = _pop_prefix(fields, role)
    key = next(iter(fields.named(*_CONTENTS)), "content")
    content, calls = fields.pop(key), _pop_calls(fields, reading)
    if is_call:
        calls, content = read_calls(content, f"{where}.{key}", reading), None
    extra: dict[str, Any] = {"tool_calls": calls} if calls else {}
    is_absent = content is None
    if is_absent or (content == "" and calls):
        content = []  # templates test whether there is content besides the calls
    read = read_content(content, f"{where}.{key}", reading)
    thoughts = [part.text for part in read if isinstance(part, Thinking)]
    if thoughts:
        extra["reasoning_content"] = "\n".join(thoughts)
    extra |= {
        name: plain(item, f"{where}.{name}", allow_dates=name not in _KEYS_OF_CALLS)
        for name, item in fields.rest.items()
    }
    message = Message(
        role=role,
        content=tuple(part for part in read if not isinstance(part, Thinking)),
        weight=0.0 if is_prefix else 1.0 if weight is None else weight,
        extra=extra,
        is_prefix=is_prefix,
        is_string=isinstance(content, str),
    )
    if is_absent:
        _check_says_something(message, where, key)
    return message


def _pop_prefix(fields: Fields, role: str) -> bool:
    """Whether the model continues the message."""
    value = fields.pop("prefix")
    if value in (None, False):
        return False
    if value is not True or role != "assistant":
        raise ConversationError(
            f"expected True in an assistant message, found {describe(value)} in a {role!r} message",
            where=fields.path("prefix"),
        )
    return True


def _pop_calls(fields: Fields, reading: Reading) -> list[dict[str, Any]]:
    """The calls of a message, also in the legacy spelling of one call."""
    found: list[dict[str, Any]] = []
    for key in fields.named("tool_calls", "function_call"):
        found += read_calls(fields.pop(key), fields.path(key), reading)
    return found


def _check_says_something(message: Message, where: str, key: str) -> None:
    """Refuses a message without content that would train, or says nothing at all."""
    says = any(message.extra.get(name) for name in ("tool_calls", *_REASONING))
    if says or (message.is_assistant and not message.weight):
        return
    if message.is_assistant or not message.extra:
        raise ConversationError(
            "the message has no content; add a text, which may be empty, or set its weight to 0",
            where=f"{where}.{key}",
        )
