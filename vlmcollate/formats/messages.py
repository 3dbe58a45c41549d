"""Lists of messages, in the spellings of OpenAI, Hugging Face, ShareGPT and LLaVA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.calls import read_calls
from vlmcollate.formats.fields import Fields, as_list, parsed
from vlmcollate.formats.joining import CALL_MESSAGE, joined
from vlmcollate.formats.parts import Thinking, read_content, result_text
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.responses import item_type, read_item
from vlmcollate.formats.roles import CALLS, RESULTS, read_role
from vlmcollate.formats.simple import simple_message
from vlmcollate.formats.weights import SPELLINGS, pop_weight
from vlmcollate.plain_values import describe, plain, show_all, unwrap

_ROLES = ("role", "from")
_CONTENTS = ("content", "value")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_KEYS_OF_CALLS = frozenset({"tool_calls", "tools", "functions"})


def read_messages(value: object, where: str, reading: Reading) -> tuple[Message, ...]:
    """Reads a list of messages.

    Args:
        value: The list, or JSON of it.
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
    places = [f"{where}[{i}]" for i in range(len(items))]
    read = [_read_item(item, at, reading) for item, at in zip(items, places, strict=True)]
    for i, (message, _) in enumerate(read[:-1]):
        if message.is_prefix:
            raise ConversationError(
                "only the last message may be a prefix; remove 'prefix'",
                where=f"{where}[{i}].prefix",
            )
    return joined([message for message, _ in read], [kind for _, kind in read], places)


def _read_item(value: object, where: str, reading: Reading) -> tuple[Message, str]:
    """A message, and its kind for `joined`."""
    simple = simple_message(value)
    if simple is not None:
        return simple, ""
    value = parsed(unwrap(value), where, "{")
    if not isinstance(value, Mapping):
        raise ConversationError(
            'expected a message such as {"role": "user", "content": ...}, found '
            f"{describe(value)}",
            where=where,
        )
    fields = Fields(value, where)
    kind = item_type(fields)
    if kind:
        return read_item(fields, kind, reading), kind
    return _read_message(fields, where, reading)


def _read_message(fields: Fields, where: str, reading: Reading) -> tuple[Message, str]:
    role, is_call = _pop_role(fields)
    weight = _pop_weight_of(role, fields)
    is_prefix = _pop_prefix(fields, role)
    key = next(iter(fields.named(*_CONTENTS)), "content")
    content, calls = fields.pop(key), _pop_calls(fields, reading)
    content = _pop_refusal(fields, content)
    if is_call:
        calls, content = read_calls(content, f"{where}.{key}", reading), None
    is_absent, is_silent = content is None, content == "" and bool(calls)
    if is_absent or is_silent:
        content = []  # templates test whether there is content besides the calls
    if role in RESULTS:
        content = result_text(content, f"{where}.{key}")
    read = read_content(content, f"{where}.{key}", reading)
    message = Message(
        role=role,
        content=tuple(part for part in read if not isinstance(part, Thinking)),
        weight=0.0 if is_prefix else 1.0 if weight is None else weight,
        extra=_read_extra(fields, calls, [p.text for p in read if isinstance(p, Thinking)]),
        is_prefix=is_prefix,
        is_string=is_silent or isinstance(content, str),
    )
    _check_weights(message, weight, where)
    if is_absent:
        _check_says_something(message, where, key)
    return message, CALL_MESSAGE if is_call else ""


def _pop_refusal(fields: Fields, content: Any) -> Any:
    """The content, which may stand under `refusal` instead."""
    refusal = fields.pop("refusal")
    if not refusal:
        return content
    if content:
        raise ConversationError(
            "holds a content and a refusal; keep one", where=fields.path("refusal")
        )
    if not isinstance(refusal, str):
        raise ConversationError(
            f"expected a string, found {describe(refusal)}", where=fields.path("refusal")
        )
    return refusal


def _pop_role(fields: Fields) -> tuple[str, bool]:
    """The role, and whether the content of the message is the JSON of calls."""
    key = next(iter(fields.named(*_ROLES)), "role")
    if key not in fields:
        raise ConversationError(
            f"a message has no role: found the keys {show_all(fields)}, expected 'role' and "
            "'content', or 'from' and 'value'; rename them, or name the format of the dataset",
            where=fields.where,
        )
    given = fields.pop(key)
    if fields.get("type") == "message":  # of the responses API
        fields.pop("type")
        if fields.get("status") == "completed":
            fields.pop("status")
    is_call = isinstance(given, str) and given in CALLS
    return ("assistant" if is_call else read_role(given, fields.path(key))), is_call


def _pop_weight_of(role: str, fields: Fields) -> float | None:
    """The weight of a message, which only an assistant's may have."""
    spelled = fields.named(*SPELLINGS)
    weight = pop_weight(fields)
    if role != "assistant" and weight:
        raise ConversationError(
            f"only assistant messages train, found {spelled[0]!r} in a {role!r} message; remove it",
            where=fields.path(spelled[0]),
        )
    return weight


def _read_extra(fields: Fields, calls: list[dict[str, Any]], thoughts: list[str]) -> dict[str, Any]:
    """The fields for the template: calls, reasoning, and those that are left."""
    extra: dict[str, Any] = {"tool_calls": calls} if calls else {}
    if thoughts:
        given = fields.named(*_REASONING)
        if given:
            raise ConversationError(
                f"holds reasoning in a part and under {given[0]!r}; keep one", where=fields.where
            )
        extra["reasoning_content"] = "\n".join(thoughts)
    return extra | {
        name: plain(item, fields.path(name), allow_dates=name not in _KEYS_OF_CALLS)
        for name, item in fields.rest.items()
    }


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
    given = fields.named("tool_calls", "function_call")
    if len(given) > 1:
        raise ConversationError(
            "holds calls under 'tool_calls' and 'function_call'; keep one", where=fields.where
        )
    return read_calls(fields.pop(given[0]), fields.path(given[0]), reading) if given else []


def _check_weights(message: Message, weight: float | None, where: str) -> None:
    """Refuses weights of parts that contradict the message, and calls that are a prefix."""
    weighs = any(part.weight for part in message.content)
    if weighs and (weight == 0 or not message.is_assistant or message.is_prefix):
        what = "is a prefix" if message.is_prefix else "does not train"
        raise ConversationError(
            f"{what}, but a part of its content has a weight; remove one", where=where
        )
    if message.is_prefix and (weight or message.extra.get("tool_calls")):
        what = "a weight" if weight else "tool calls"
        raise ConversationError(
            f"is a prefix, which is text that does not train, but has {what}; remove one",
            where=where,
        )


def _check_says_something(message: Message, where: str, key: str) -> None:
    """Refuses a message without content that would train, or says nothing at all."""
    says = any(message.extra.get(name) for name in ("tool_calls", *_REASONING))
    if says or (message.is_assistant and not message.weight):
        return
    if message.is_assistant or not message.extra:
        besides = f" beside the keys {show_all(message.extra)}" if message.extra else ""
        raise ConversationError(
            f"the message has no content{besides}; add a text, which may be empty, or set its "
            "weight to 0",
            where=f"{where}.{key}",
        )
