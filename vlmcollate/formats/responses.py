"""Items of OpenAI's responses API that have no role: calls, their results, and reasoning."""

from __future__ import annotations

from typing import Any

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.calls import read_call
from vlmcollate.formats.fields import Fields, as_list
from vlmcollate.formats.parts import Thinking, read_content, result_text
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.weights import pop_weight
from vlmcollate.plain_values import describe, plain, plain_text, unwrap

CALL, RESULT, REASONING = "function_call", "function_call_output", "reasoning"
_ITEMS = frozenset({CALL, RESULT, REASONING})


def item_type(fields: Fields) -> str:
    """Returns the type of an item that has no role, or an empty string for a message.

    Raises:
        ConversationError: Nothing reads items of its type.
    """
    if fields.named("role", "from"):
        return ""
    kind = fields.get("type")
    if not isinstance(kind, str) or kind == "message":
        return ""
    if kind not in _ITEMS:
        raise ConversationError(
            f"has no role, and is an item of an unknown type: found {kind!r}, expected one of "
            f"{sorted(_ITEMS)}; rewrite it as a message with a role",
            where=fields.path("type"),
        )
    return kind


def read_item(fields: Fields, kind: str, reading: Reading) -> Message:
    """Reads an item as the message that chat templates take.

    Args:
        fields: The fields of the item.
        kind: Its type; see `item_type`.
        reading: What is known of the example.

    Raises:
        ConversationError: A field is wrong.
    """
    fields.pop("type")
    if fields.get("status") == "completed":
        fields.pop("status")
    weight = pop_weight(fields)
    if kind == RESULT:
        return _read_result(fields, weight, reading)
    if kind == CALL:
        calls = [read_call(fields.rest, fields.where, reading)]
        weight = 1.0 if weight is None else weight
        return Message(role="assistant", content=(), weight=weight, extra={"tool_calls": calls})
    if weight is not None:
        raise ConversationError(
            "has a weight, but reasoning has that of its answer; remove it", where=fields.where
        )
    fields.pop("id")
    text = _pop_reasoning(fields)
    reading.leave(fields)
    extra = {"reasoning_content": text} if text else {}
    return Message(role="assistant", content=(), extra=extra)


def _read_result(fields: Fields, weight: float | None, reading: Reading) -> Message:
    if weight:
        raise ConversationError("weighs, but only answers train; remove it", where=fields.where)
    where = fields.path("output")
    given = fields.pop("output")
    if given is None:
        raise ConversationError("expected the result of the call, found nothing", where=where)
    given = result_text(given, where)
    content = [p for p in read_content(given, where, reading) if not isinstance(p, Thinking)]
    rest = {name: plain(item, fields.path(name)) for name, item in fields.rest.items()}
    named = {"tool_call_id" if name == "call_id" else name: item for name, item in rest.items()}
    is_string = isinstance(given, str)
    return Message(role="tool", content=tuple(content), extra=named, is_string=is_string)


def _pop_reasoning(fields: Fields) -> str:
    """The text of a reasoning item, of its content or else of its summary."""
    texts = {}
    for key in fields.named("content", "summary"):
        found = _texts(fields.pop(key), fields.path(key))
        if found:
            texts[key] = "\n".join(found)
    if len(texts) > 1:
        raise ConversationError(
            "holds reasoning under 'content' and 'summary'; keep one", where=fields.where
        )
    return next(iter(texts.values()), "")


def _texts(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        return [plain_text(value, where)]
    found = []
    for i, item in enumerate(as_list(value, where)):
        item = unwrap(item)
        text = unwrap(item.get("text")) if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise ConversationError(
                f"expected a text, found {describe(item)}", where=f"{where}[{i}]"
            )
        found.append(plain_text(text, where))
    return found
