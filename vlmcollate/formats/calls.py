"""The calls of an assistant message, in the spellings of OpenAI and of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import Fields, as_list, parsed
from vlmcollate.formats.reading import Reading
from vlmcollate.plain_values import describe, fields_of, plain, plain_text, unwrap

_ARGUMENTS = ("arguments", "parameters", "args", "input")
_IDS = ("id", "call_id", "index")


class ParsedArguments(dict[str, Any]):
    """Arguments that were JSON text, which a template that takes text gets unchanged.

    Attributes:
        text: The text.
    """

    text: str


def read_calls(value: object, where: str, reading: Reading) -> list[dict[str, Any]]:
    """Reads the tool calls of a message.

    Args:
        value: A call, a list of calls, or JSON of either. A call is
            `{"function": {"name": ..., "arguments": ...}}`, or the inner dict alone.
        where: Its path in the example.
        reading: What is known of the example.

    Returns:
        The calls, whose arguments are dicts.

    Raises:
        ConversationError: It is anything else.
    """
    value = parsed(unwrap(value), where, "[{")
    items = [value] if isinstance(value, Mapping) else as_list(value, where)
    return [read_call(item, f"{where}[{i}]", reading) for i, item in enumerate(items)]


def read_call(value: object, where: str, reading: Reading) -> dict[str, Any]:
    """Reads one tool call; see `read_calls`."""
    call = fields_of(parsed(unwrap(value), where, "{"))
    if not isinstance(call, Mapping):
        raise ConversationError(f"expected a call, found {describe(call)}", where=where)
    outer = Fields(call, where)
    function = fields_of(parsed(outer.pop("function"), where, "{"))
    inner = outer
    if function is not None:
        if not isinstance(function, Mapping):
            raise ConversationError(
                f"expected a dict with 'name' and 'arguments', found {describe(function)}",
                where=f"{where}.function",
            )
        inner = Fields(function, f"{where}.function")
    name, arguments = _pop_name(inner), _pop_arguments(inner, reading)
    if "call_id" in outer:  # of the responses API, where `id` is that of the item
        outer.pop("id")
    given = {name: plain(outer.pop(name), outer.path(name)) for name in outer.named(*_IDS)}
    kept = {"id" if name == "call_id" else name: number for name, number in given.items()}
    outer.pop("type")
    for fields in {id(f): f for f in (outer, inner)}.values():
        reading.leave(fields)
    return {"type": "function", **kept, "function": {"name": name, "arguments": arguments}}


def _pop_name(fields: Fields) -> str:
    name = fields.pop("name")
    if not isinstance(name, str) or not name:
        raise ConversationError(
            f"expected the name of the function, found {describe(name)}", where=fields.path("name")
        )
    return plain_text(name, fields.path("name"))


def _pop_arguments(fields: Fields, reading: Reading) -> Any:
    given = fields.named(*_ARGUMENTS)
    if len(given) > 1:
        raise ConversationError(
            f"holds arguments under {' and '.join(map(repr, given))}; keep one", where=fields.where
        )
    if not given:
        return {}
    where = f"{fields.where}.arguments" if given == ["arguments"] else fields.path(given[0])
    return _read_arguments(fields.pop_raw(given[0]), where, reading)


def _read_arguments(value: object, where: str, reading: Reading) -> Any:
    value = unwrap(value)
    if value is None:
        return {}
    if isinstance(value, str):
        if not value.strip():
            return {}
        found = parsed(value, where, value.lstrip()[:1])
        if found is None:
            return {}
        _check_arguments(found, where)
        arguments = ParsedArguments(plain(found, where, keep_missing=True))
        arguments.text = value
        return arguments
    value = fields_of(value)
    _check_arguments(value, where)
    if reading.keep_none_arguments:
        return plain(value, where, keep_missing=True)
    kept = plain(value, where)
    if _holds_none(value):
        reading.dropped_arguments.append(where)
    return kept


def _check_arguments(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ConversationError(
            f"expected a dict of arguments by their names, or its JSON, found {describe(value)}; "
            "pass the dict",
            where=where,
        )


def _holds_none(value: Any) -> bool:
    """Returns whether a dict, at any depth, has a key whose value is `None`."""
    value = unwrap(value)
    if isinstance(value, Mapping):
        return any(unwrap(item) is None or _holds_none(item) for item in value.values())
    return isinstance(value, list | tuple) and any(map(_holds_none, value))
