"""The calls of an assistant message, in the spellings of OpenAI and of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import as_list, parsed
from vlmcollate.formats.reading import Reading
from vlmcollate.plain_values import describe, fields_of, plain, unwrap


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
    return [_read_call(item, f"{where}[{i}]", reading) for i, item in enumerate(items)]


def _read_call(value: object, where: str, reading: Reading) -> dict[str, Any]:
    call = fields_of(parsed(unwrap(value), where, "{"))
    if not isinstance(call, Mapping):
        raise ConversationError(f"expected a call, found {describe(call)}", where=where)
    function = fields_of(unwrap(call.get("function")))
    if not isinstance(function, Mapping):
        if "name" not in call:
            raise ConversationError(
                f"expected a call with a 'name', found {describe(call)}", where=where
            )
        call, function = _nested(call)
    inner = f"{where}.function"
    given = {**function}
    arguments = given.pop("arguments", given.pop("parameters", None))
    copied: dict[str, Any] = plain({**call, "function": given}, where)
    copied["function"]["arguments"] = _read_arguments(arguments, f"{inner}.arguments", reading)
    return copied


def _nested(call: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a bare call as the outer and the inner dict of OpenAI's form."""
    outer = {key: value for key, value in call.items() if key in ("id", "index")}
    inner = {key: value for key, value in call.items() if key not in ("id", "index", "type")}
    return {"type": "function", **outer}, inner


def _read_arguments(value: object, where: str, reading: Reading) -> Any:
    value = unwrap(value)
    if value is None:
        return {}
    if isinstance(value, str):
        if not value.strip():
            return {}
        found = parsed(value, where, value.lstrip()[:1])
        copied = plain(found, where, keep_missing=True)
        if not isinstance(copied, dict):
            return copied
        arguments = ParsedArguments(copied)
        arguments.text = value
        return arguments
    if reading.keep_none_arguments:
        return plain(value, where, keep_missing=True)
    kept = plain(value, where)
    if _holds_none(value):
        reading.dropped_arguments.append(where)
    return kept


def _holds_none(value: Any) -> bool:
    """Returns whether a dict, at any depth, has a key whose value is `None`."""
    value = unwrap(value)
    if isinstance(value, Mapping):
        return any(unwrap(item) is None or _holds_none(item) for item in value.values())
    return isinstance(value, list | tuple) and any(map(_holds_none, value))
